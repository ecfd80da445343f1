"""The registry of criteria: formulas by hand, the columns and energies made from it, and adding one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from typer.testing import CliRunner

from lark_engine.config import SelectConfig
from lark_engine.errors import ConfigError
from lark_engine.scoring.criteria import CRITERIA, Criterion, derived_columns, energy_names, g_hat, rho, rsr
from lark_engine.scoring.matrix import layout
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.frame import SelectionFrame

NAN = float("nan")


def test_g_hat_by_hand_and_its_identity() -> None:
    nll, brier = np.array([[1.0, 3.0]]), np.array([[0.5, 0.7]])
    # ΣL = 4, Σbrier = 1.2: g = (2·brier − L·0.3) / 4.
    assert g_hat(nll, brier)[0] == pytest.approx([(1.0 - 0.3) / 4, (1.4 - 0.9) / 4])
    assert g_hat(nll, brier).sum() == pytest.approx(brier.sum() / nll.sum())
    assert rho(nll, brier)[0] == pytest.approx([0.5, 0.7 / 3])


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, (3, 5), elements=st.floats(0.01, 9)),
    hnp.arrays(np.float64, (3, 5), elements=st.floats(0, 2)),
)
def test_g_hat_sums_to_total_brier_over_total_nll(nll: np.ndarray, brier: np.ndarray) -> None:
    assert g_hat(nll, brier).sum(axis=1) == pytest.approx(brier.sum(axis=1) / nll.sum(axis=1))


def test_a_missing_candidate_is_no_candidate() -> None:
    with_gap = g_hat(np.array([[1.0, NAN, 3.0]]), np.array([[0.5, 0.4, 0.7]]))
    assert with_gap[0, [0, 2]] == pytest.approx(g_hat(np.array([[1.0, 3.0]]), np.array([[0.5, 0.7]]))[0])
    assert np.isnan(with_gap[0, 1])
    assert np.isnan(g_hat(np.array([[0.0, 0.0]]), np.array([[0.0, 0.0]]))).all()


def test_rho_of_a_certain_trajectory_is_zero_and_its_rsr_is_not_known() -> None:
    assert rho(np.array([0.0, 1e-31]), np.array([0.0, 1e-3])).tolist() == [0.0, 0.0]
    assert rsr(np.array([1.0, 3.0]), np.array([0.0, 1.5])).tolist() == pytest.approx([NAN, 2.0], nan_ok=True)


def test_every_energy_of_the_method_has_one_criterion() -> None:
    assert set(energy_names()) == {
        "g_hat", "-nll", "+nll", "-rsr", "-brier", "+rho", "-num_response_tokens", "+num_response_tokens", "random",
    }  # fmt: skip
    assert len(set(energy_names())) == len(energy_names())
    assert [name for name, criterion in CRITERIA.items() if criterion.is_derived] == ["g_hat", "rsr", "rho"]


def test_derived_columns_of_a_score_table() -> None:
    where = layout(pd.Series(["p", "q", "p"]))
    stats = {"nll": np.array([1.0, 2.0, 3.0]), "brier": np.array([0.5, 0.4, 0.7]), "mean_rank": np.array([2.0, 3, NAN])}
    columns = derived_columns(stats, where)
    assert columns["g_hat"] == pytest.approx([0.175, 0.2, 0.125])
    assert columns["rho"] == pytest.approx([0.5, 0.2, 0.7 / 3])
    assert columns["rsr"] == pytest.approx([2.0, 1.5, NAN], nan_ok=True)


def test_a_criterion_whose_statistic_is_absent_is_null_in_every_row() -> None:
    stats = {"nll": np.array([1.0, 3.0]), "brier": np.array([0.5, 0.7])}
    assert np.isnan(derived_columns(stats, layout(pd.Series(["p", "p"])))["rsr"]).all()


def test_a_layout_places_rows_that_are_not_neighbors() -> None:
    where = layout(pd.Series(["p", "q", "p", "p"]))
    matrix = where.spread(np.array([1.0, 2.0, 3.0, 4.0]))
    assert matrix[0].tolist() == [1.0, 3.0, 4.0]
    assert matrix[1].tolist() == pytest.approx([2.0, NAN, NAN], nan_ok=True)
    assert where.gather(matrix).tolist() == [1.0, 2.0, 3.0, 4.0]
    assert not where.is_dense
    dense = layout(pd.Series(["p", "p", "q", "q"]))
    assert dense.is_dense
    assert dense.spread(np.arange(4)).tolist() == [[0, 1], [2, 3]]


TOY = Criterion(
    name="surprise", symbol="ς", formula="entropy · mean_rank", unit="nats·ranks", source="a test",
    needs=("entropy", "mean_rank"), better="lower", energies=("-surprise",), compute=np.multiply,
)  # fmt: skip


def test_a_criterion_added_to_the_registry_is_a_column_and_an_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'energy' = '-surprise': no such energy"):
        SelectConfig.parse({"energy": "-surprise"}, "select")
    monkeypatch.setitem(CRITERIA, TOY.name, TOY)
    table = pd.DataFrame(
        {
            "row": [0, 1, 2], "problem_id": ["p"] * 3, "teacher": ["a"] * 3, "num_prompt_tokens": 1,
            "num_response_tokens": 1, "entropy": [1.0, 3.0, 2.0], "mean_rank": [2.0, 1.0, 0.5],
        }
    )  # fmt: skip
    stats = {name: table[name].to_numpy() for name in TOY.needs}
    assert derived_columns(stats, layout(table["problem_id"]))["surprise"].tolist() == [2.0, 3.0, 1.0]
    config = SelectConfig(energy="-surprise", budget=2)
    kept = SelectionFrame(Candidates(table), config).solve(config).kept
    assert dict(zip(kept.key.tolist(), kept.prob.tolist(), strict=True)) == pytest.approx({2: 2 / 3, 0: 1 / 3})


def test_a_wrong_energy_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"'energy' = '\+rh': no such energy; did you mean '\+rho'\?"):
        SelectConfig.parse({"energy": "+rh"}, "select")


def test_the_help_lists_every_energy() -> None:
    from lark_engine.cli import app

    text = CliRunner().invoke(app, ["select", "--help"], terminal_width=400, env={"COLUMNS": "400"}).output
    assert "|".join(energy_names()) in text
