"""A recipe of all stages."""

from __future__ import annotations

from typing import Any

from lark_engine.config.base import StageConfig, option


class RunRecipe(StageConfig):
    """All stages of one run, as `lark run recipe.yaml` reads them."""

    name: str = option(..., "name of the run")
    student: str = option(..., "the student of every stage: folder, workspace student, or Hugging Face id")
    pool: dict[str, Any] = option(..., "options of `lark pool import`")
    score: dict[str, Any] = option({}, "options of `lark score`")
    select: dict[str, Any] = option({}, "options of `lark select`")
    train: dict[str, Any] = option({}, "options of `lark train`, or `recipe: NAME` and what differs from it")
    generate: dict[str, Any] = option(..., "options of `lark generate`")
    grade: dict[str, Any] = option({}, "options of `lark grade`")
    baseline: bool = option(True, "evaluate the untrained student too, as the table's reference row")
