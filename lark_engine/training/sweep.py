"""A comparison in one command: the same budget and the same tokens, selected in several ways, with several seeds.

All runs of a sweep hold out the same problems and are measured on all candidates of these, whatever they train on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import pandas as pd

from lark_engine.config import SelectConfig, SweepConfig, TrainConfig
from lark_engine.evaluation.intervals import Interval, mean_interval
from lark_engine.selection.select import select
from lark_engine.store.atomic import write_json
from lark_engine.store.fingerprint import fingerprint
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace, read_table
from lark_engine.training.examples import build_training_set, read_train_file
from lark_engine.training.held_out import HELD_OUT, PROBLEMS, split
from lark_engine.training.plan import checkpoint_name, plan_train, selection_data
from lark_engine.training.train import train

log = logging.getLogger(__name__)

RUNS = "runs.json"
COMPARISON = "comparison.json"
# What the other arms are compared with, where it is among them.
REFERENCE = "uniform"
# To be raised when a change of the code changes what is written.
VERSION = 1


class Run(NamedTuple):
    """One training run of a sweep."""

    arm: str
    seed: int
    selection: Artifact
    config: TrainConfig


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """What a sweep says of one arm. Intervals are 95 %: over seeds, and of differences over problems."""

    arm: str
    num_seeds: int
    tokens: float
    loss: Interval
    difference: Interval | None


def sweep(
    config: SweepConfig, train_config: TrainConfig, workspace: Workspace, scores: Artifact, pool: Artifact
) -> Artifact:
    """Select, train and compare. Every selection and checkpoint is an artifact of its own; running again resumes.

    Writes runs.json (arm, seed, selection, checkpoint, tokens, held-out loss) and comparison.json (`ArmResult`s).
    Errors: those of the stages.
    """
    measured = select(_select_config(config, rule="all"), workspace, scores, pool)
    runs = _runs(config, train_config, workspace, scores, pool, measured)
    plans = [plan_train(run.config, workspace, selection_data(run.selection))[0] for run in runs]
    plan = Plan(
        kind="sweeps",
        name=f"{checkpoint_name(train_config)}-b{config.budget}",
        fingerprint=fingerprint({"checkpoints": [p.fingerprint for p in plans], "version": VERSION}),
        config={**config.model_dump(mode="json"), "train": runs[0].config.model_dump(mode="json")},
        inputs={"scores": scores.ref, **{f"{run.arm}-{run.seed}": p.ref for run, p in zip(runs, plans, strict=True)}},
    )

    def make(draft: Draft) -> None:
        rows, checkpoints = [], []
        for number, run in enumerate(runs, 1):
            log.info("run %d of %d: %s, seed %d", number, len(runs), run.arm, run.seed)
            checkpoint = train(run.config, workspace, selection_data(run.selection))
            assert checkpoint is not None
            checkpoints.append(checkpoint)
            rows.append(_row(run, checkpoint))
        write_json(draft.path / RUNS, rows)
        arms = compare(rows, [held_out_losses(checkpoint) for checkpoint in checkpoints])
        write_json(draft.path / COMPARISON, [asdict(arm) for arm in arms])
        draft.counts = {"num_runs": len(runs), "num_held_out": checkpoints[0].manifest.counts["num_held_out"]}
        draft.tokens = sum(row["tokens"] for row in rows)

    return workspace.build(plan, make)


def _select_config(config: SweepConfig, **rule: Any) -> SelectConfig:
    return SelectConfig(
        correct_only=config.correct_only, drop_truncated=config.drop_truncated, deduplicate=config.deduplicate, **rule
    )


def _runs(
    config: SweepConfig, train_config: TrainConfig, workspace: Workspace, scores: Artifact, pool: Artifact,
    measured: Artifact,
) -> list[Run]:  # fmt: skip
    """Every arm with every seed, all of as many tokens as the smallest selection has in the config's epochs."""
    rules: dict[str, dict[str, Any]] = {
        "chi2": {"rule": "chi2"},
        "uniform": {"rule": "top_b"},
        "random": {"rule": "top_b", "energy": "random"},
    }
    runs = []
    for seed in config.seeds:
        for arm in config.arms:
            seeded = {"seed": seed} if arm == "random" else {}
            selection = select(
                _select_config(config, budget=config.budget, **rules[arm], **seeded), workspace, scores, pool
            )
            changes = {
                "seed": seed, "recipe": f"{checkpoint_name(train_config)}-{arm}", "eval_data": measured.id,
                "weighting": "selection",
            }  # fmt: skip
            runs.append(Run(arm, seed, selection, train_config.model_copy(update=changes)))
    if train_config.max_steps or train_config.max_tokens:
        return runs
    resolved = plan_train(runs[0].config, workspace, selection_data(runs[0].selection))[1].config
    tokens = _equal_tokens(runs, resolved, workspace)
    log.info("every run sees %s tokens, prompts included", f"{tokens:,}")
    return [run._replace(config=run.config.model_copy(update={"max_tokens": tokens})) for run in runs]


def _equal_tokens(runs: Sequence[Run], config: TrainConfig, workspace: Workspace) -> int:
    """Tokens of the smallest training set of any run, times its epochs. `config`: any run's, resolved."""
    from lark_engine.chat import ChatRenderer
    from lark_engine.models import load_tokenizer, resolve_student

    student = resolve_student(config.student, workspace)
    tokenizer = load_tokenizer(student, trust_remote_code=config.trust_remote_code)
    renderer = ChatRenderer(tokenizer, render=config.render, chat_template=config.chat_template, name=student.name)
    totals = []
    for selection in {run.selection.id: run.selection for run in runs}.values():
        lines = split(read_train_file(selection_data(selection).path), config.eval_share)[0]
        totals.append(sum(build_training_set(lines, renderer, config).lengths))
    return round(min(totals) * config.epochs)


def _row(run: Run, checkpoint: Artifact) -> dict[str, Any]:
    return {
        "arm": run.arm, "seed": run.seed, "selection": run.selection.id, "checkpoint": checkpoint.id,
        "steps": checkpoint.manifest.counts["num_steps"], "tokens": checkpoint.manifest.counts["tokens_seen"],
        "held_out_loss": checkpoint.manifest.metrics[f"eval_{PROBLEMS}_loss"],
    }  # fmt: skip


def held_out_losses(checkpoint: Artifact) -> pd.Series[float]:
    """Mean loss of each held-out problem over its candidates, by problem_id."""
    table = read_table(checkpoint.path / HELD_OUT)
    return table[table["set"] == PROBLEMS].groupby("problem_id")["nll"].mean()


def compare(rows: Sequence[dict[str, Any]], losses: Sequence[pd.Series[float]]) -> list[ArmResult]:
    """The arms in the order in which they first come. `losses`: of each row's checkpoint, by problem.

    The interval of a mean is over seeds. That of a difference to the reference arm is over problems, each the mean
    over seeds: it says what another draw of problems would change, at these seeds.
    """
    by_arm = {
        arm: [i for i, row in enumerate(rows) if row["arm"] == arm] for arm in dict.fromkeys(r["arm"] for r in rows)
    }
    per_problem = {arm: pd.concat([losses[i] for i in places], axis=1).mean(axis=1) for arm, places in by_arm.items()}
    results = []
    for arm, places in by_arm.items():
        difference = None
        if arm != REFERENCE and REFERENCE in by_arm:
            difference = mean_interval((per_problem[arm] - per_problem[REFERENCE]).tolist())
        results.append(
            ArmResult(
                arm=arm, num_seeds=len(places), tokens=sum(rows[i]["tokens"] for i in places) / len(places),
                loss=mean_interval([rows[i]["held_out_loss"] for i in places]), difference=difference,
            )
        )  # fmt: skip
    return results
