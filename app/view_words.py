"""What a view shows, in a few words: for a list of views, and as the name of one that is given none."""

from __future__ import annotations

from collections.abc import Sequence

from app import address
from app.pool_edits import describe
from lark_engine.figures.safe_text import one_line
from lark_engine.figures.tuning import budget_text
from lark_engine.sharing.views import Page

# Of each page the parameters that say most, in the order in which they are said.
_SAID: dict[Page, dict[str, str]] = {
    "overview": {"metric": "{}"},
    "score": {"task": "{} a pool", "score.pool": "{}", "pool.source": "{}", "rejected": "lines left out of {}"},
    "explore": {
        "metric": "{}", "teacher": "only {}", "quality": "only {}", "difficulty": "difficulty {}",
        "find": "problems with {}", "table": "table of {}",
    },
    "trajectory": {
        "problem": "problem {}", "candidate": "candidate {}", "versus": "beside candidate {}", "heat": "{} of tokens",
    },
    "tune": {"against": "against {}", "problem": "problem {}"},
    "train": {
        "view": "{}", "run": "{}", "overlay": "over {}", "train_data": "on {}", "train_recipe": "recipe {}",
        "train_draft": "typed YAML",
    },
    "evaluate": {
        "view": "{}", "metric": "{}", "benchmark": "{}", "a": "A: {}", "b": "B: {}", "grade": "{}",
        "problem": "problem {}", "eval_model": "{}",
    },
    "jobs": {"job": "{}", "job_state": "{}"},
    "share": {},
}  # fmt: skip
# Said by one of the above, or how something is drawn: not worth a word.
_UNSAID = {address.SCORES, "page", "desc", "sort", "against"}
# Their values are words of ours, not names.
_OF_WORDS = ("metric", "quality", "view", "table", "task", "job_state")
_WITH_SELECTION = ("explore", "trajectory", "tune")
_MOST_FACTS, _MOST_LETTERS = 5, 48


def words_of(page: Page, params: Sequence[tuple[str, str]]) -> str:
    """`χ² · B = 8 · only Qwen3-32B · 2 more settings`; plain text."""
    values: dict[str, list[str]] = {}
    for name, value in params:
        values.setdefault(name, []).append(value)
    facts: list[str] = []
    said = set(_UNSAID)
    if page in _WITH_SELECTION:
        config = address.config_of(values)
        edits = len(describe(config))
        facts = [budget_text(config), *([f"{edits} pool edit{'s' * (edits != 1)}"] if edits else [])]
        said |= set(address.SELECT_PARAMS)
    else:  # what pages without a selection only pass on
        said |= {*address.SELECT_PARAMS, *address.PINS}
    facts += [form.format(_said(name, values[name])) for name, form in _SAID[page].items() if name in values]
    more = len(values.keys() - said - _SAID[page].keys()) + max(len(facts) - _MOST_FACTS, 0)
    facts = facts[:_MOST_FACTS]
    if more:
        facts.append(f"{more} more setting{'s' * (more != 1)}")
    return " · ".join(facts) or "as it comes"


def _said(name: str, values: Sequence[str]) -> str:
    text = one_line(", ".join(values), _MOST_LETTERS)
    return text.replace("_", " ") if name in _OF_WORDS else text
