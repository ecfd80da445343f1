"""Options of a report: what of a workspace is put into one file, and how much of its texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self, get_args

from pydantic import model_validator

from lark_engine.config.base import StageConfig, option

Block = Literal[
    "lineage", "pool", "teachers", "selection", "cost", "training", "results", "comparison", "problems", "commands",
    "versions",
]  # fmt: skip
BLOCKS: tuple[Block, ...] = get_args(Block)
Texts = Literal["none", "chosen", "all"]
ReportFormat = Literal["html", "markdown", "csv", "latex", "all"]


class ReportConfig(StageConfig):
    """One file for a colleague: chosen blocks of what follows from one set of scores."""

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Content": ("title", "block", "scores", "selection_a", "selection_b", "recipe", "run"),
        "Results": ("benchmark", "by_method", "compare_a", "compare_b", "metric"),
        "Texts": ("texts", "problem", "num_problems", "redact"),
        "File": ("format", "output"),
    }  # fmt: skip

    title: str = option("", "title of the report; by default what it is about", max_length=200)
    block: tuple[Block, ...] = option((), "blocks to put in, by default all that there is material for")
    scores: str | None = option(None, "scores by id or name, by default the newest")
    selection_a: str | None = option(
        None, "selection A: a saved one, or written as B=8&mode=sharpness&sharpness=0.5; by default the newest saved"
    )
    selection_b: str | None = option(None, "selection B, which is shown against A")
    recipe: str | None = option(None, "training recipe that the cost is for, by default the run's, else lora")
    run: str | None = option(None, "training run by checkpoint id, by default the newest on these scores")
    benchmark: tuple[str, ...] = option((), "only these benchmarks in the results")
    by_method: bool = option(False, "runs that differ in the seed only as one row")
    compare_a: str | None = option(None, "A of the comparison of results: a model, checkpoint, grade, or SWEEP:ARM")
    compare_b: str | None = option(None, "B of the comparison of results")
    metric: str = option("avg", "metric of the comparison: avg, pass, maj, or one by its whole name, as pass@1")
    texts: Texts = option("none", "texts of problems to put in: none, of chosen ones (--problem), of all examples")
    problem: tuple[str, ...] = option((), "example problem by id; the first examples are these")
    num_problems: int = option(10, "example problems", ge=1, le=500)
    redact: bool = option(True, "replace paths, host and user names")
    format: ReportFormat = option("html", "one file of this kind; csv and latex: the results table; all: a zip of all")
    output: Path | None = option(None, "file to write, by default <workspace>/shared/<title>.<kind>")

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks that are asked for, in the order of a report."""
        asked = ("results",) if self.format in ("csv", "latex") else self.block
        return tuple(block for block in BLOCKS if block in asked) or BLOCKS

    @model_validator(mode="after")
    def _options_where_they_mean_something(self) -> Self:
        if self.format in ("csv", "latex") and (set(self.block) - {"results"} or self.texts != "none"):
            raise ValueError(f"format {self.format} holds the results only; leave block and texts out, or take another")
        if self.texts == "chosen" and not self.problem:
            raise ValueError("texts chosen needs problem; give --problem ID, or --texts all")
        if (self.compare_a is None) != (self.compare_b is None):
            raise ValueError("compare_a and compare_b go together; give both, or none")
        if self.selection_b is not None and self.selection_a is None:
            raise ValueError("selection_b is shown against selection_a; give that too")
        return self
