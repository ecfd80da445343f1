from __future__ import annotations

import pytest
from graded import checkpoint_of, evaluated, finished

from lark_engine.errors import ConfigError
from lark_engine.results.compare import compare
from lark_engine.results.graded import read_graded
from lark_engine.results.sides import choices, find_side
from lark_engine.store.workspace import Artifact, Workspace

RIGHTS = {"p0": "10", "p1": "00", "p2": "0x", "p3": "-1"}
LEVELS = {"p0": "1", "p1": "1", "p2": "2", "p3": "2"}


def test_models_that_were_graded_once_are_chosen_by_name(workspace: Workspace, run: dict[str, Artifact]) -> None:
    found = choices(read_graded(workspace).graded)
    assert {choice.name: len(choice.graded) for choice in found} == {"tiny": 1, run["checkpoint"].id: 2}


def test_gradings_of_one_model_are_chosen_by_their_row_of_the_table(
    workspace: Workspace, run: dict[str, Artifact]
) -> None:
    evaluated(workspace, "tiny", "gsm8k", RIGHTS, rules=["boxed"], levels=LEVELS)
    graded = read_graded(workspace).graded
    tiny = [choice for choice in choices(graded) if choice.graded[0].model["name"] == "tiny"]
    assert [choice.name for choice in tiny] == [choice.graded[0].row for choice in tiny]
    assert {choice.graded[0].grade.name for choice in tiny} == {"boxed", "boxed-answer_phrase-letter"}
    (one,) = compare(workspace, tiny[0].name, tiny[1].name).benchmarks
    assert (one.paired.difference, one.paired.num_problems) == (0.0, 4)
    assert one.differences == ("grading: boxed-answer_phrase-letter / boxed",)


def test_the_seeds_of_an_arm_are_a_choice_beside_each_alone(workspace: Workspace, run: dict[str, Artifact]) -> None:
    second = checkpoint_of(workspace, run["selection"], seed=1)
    evaluated(workspace, second.id, "gsm8k", {"p0": "00", "p1": "11", "p2": "00", "p3": "00"}, second)
    sweep = finished(workspace, "sweeps", "lora-b3", {}, inputs={"chi2-0": run["checkpoint"], "chi2-1": second})
    found = {choice.name: choice for choice in choices(read_graded(workspace).graded)}
    assert set(found) == {"tiny", run["checkpoint"].id, second.id, f"{sweep.id}:chi2"}
    assert len(found[f"{sweep.id}:chi2"].graded) == 3


def test_every_choice_means_what_it_says(workspace: Workspace, run: dict[str, Artifact]) -> None:
    evaluated(workspace, "tiny", "gsm8k", RIGHTS, rules=["boxed"], levels=LEVELS)
    graded = read_graded(workspace).graded
    for choice in choices(graded):
        meant = [one.place for same in find_side(graded, choice.name).values() for one in same]
        assert sorted(meant) == sorted(one.place for one in choice.graded)
    with pytest.raises(ConfigError, match="'tiny' has 2 grades of one benchmark"):
        find_side(graded, "tiny")
