from __future__ import annotations

import pytest
from graded import checkpoint_of, evaluated

from lark_engine.evaluation.disputes import SampleKey, add_dispute
from lark_engine.results.compare import compare
from lark_engine.results.differences import paired_difference, problem_values
from lark_engine.store.workspace import Artifact, Workspace


@pytest.mark.parametrize("metric", ["avg@2", "pass@2", "maj@2"])
def test_a_difference_is_that_of_a_comparison(workspace: Workspace, run: dict[str, Artifact], metric: str) -> None:
    (expected,) = compare(workspace, "tiny", run["checkpoint"].id, metric=metric).benchmarks
    a, b = (problem_values(run[name], [metric])[metric] for name in ("base", "trained"))
    found = paired_difference([a], [b])
    assert found is not None
    assert found.num_problems == 4
    pairs = ((found.value, expected.paired.difference), (found.low, expected.paired.low))
    for mine, theirs in (*pairs, (found.high, expected.paired.high)):
        assert mine == pytest.approx(theirs)


def test_several_runs_are_averaged_problem_by_problem(workspace: Workspace, run: dict[str, Artifact]) -> None:
    other = checkpoint_of(workspace, run["selection"], seed=1)
    second = evaluated(workspace, other.id, "gsm8k", {"p0": "00", "p1": "11", "p2": "11", "p3": "01"}, other)
    base, first, again = (problem_values(g, ["avg@2"])["avg@2"] for g in (run["base"], run["trained"], second))
    found = paired_difference([base], [first, again])
    assert found is not None
    # base: ½ 0 0 ½; the mean of both runs: ½ 1 ½ ½
    assert found.value == pytest.approx((0 + 1 + 0.5 + 0) / 4)


def test_disputed_verdicts_count_as_disputed(workspace: Workspace, run: dict[str, Artifact]) -> None:
    (generations,) = [g for g in workspace.list("evals") if g.path == run["base"].path.parents[1]]
    add_dispute(generations, SampleKey("p1", 0), correct=True, author="me", reason="the same number")
    assert problem_values(run["base"], ["avg@2"])["avg@2"] == {"p0": 0.5, "p1": 0.5, "p2": 0.0, "p3": 0.5}


def test_without_a_problem_in_common_there_is_no_difference() -> None:
    assert paired_difference([{"a": 1.0}], [{"b": 1.0}]) is None
    assert paired_difference([], [{"b": 1.0}]) is None
