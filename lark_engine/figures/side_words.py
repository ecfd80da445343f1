"""What is compared, in words: names of models that people tell apart, and what to compare first. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lark_engine.config import GradeConfig
from lark_engine.figures import formats
from lark_engine.results.graded import Graded
from lark_engine.results.sides import Choice

_RULES = {"boxed": "boxed", "answer_phrase": "phrase", "letter": "letter", "last_number": "last number"}


def first_sides(found: Mapping[str, Choice]) -> tuple[str, str]:
    """What is compared when nobody says what, by name: the newest that was trained, with an untrained student if one
    was asked the same, else with the next newest that was."""
    names = list(found)
    trained = [name for name in names if not _is_untrained(found[name])] or names
    for b in trained:
        others = sorted((n for n in names if n != b), key=lambda n: not _is_untrained(found[n]))
        for a in others:
            if share(found[a], found[b]):
                return a, b
    return names[0], names[-1]


def share(a: Choice, b: Choice) -> bool:
    """Whether two sides were asked the same problems."""
    return bool({one.asked for one in a.graded} & {one.asked for one in b.graded})


def _is_untrained(choice: Choice) -> bool:
    return made(choice.graded[0]) == "untrained"


def labels_of(found: Sequence[Choice]) -> dict[str, str]:
    """`lora-quick · LoRA · χ², B = 3`: names that people tell apart."""
    labels = {choice.name: side_label(choice) for choice in found}
    same: dict[str, list[Choice]] = {}
    for choice in found:
        same.setdefault(labels[choice.name], []).append(choice)
    for label, alike in same.items():
        samplings = {choice.graded[0].sampling for choice in alike}
        for choice in alike if len(alike) > 1 else ():
            told = len(samplings) == len(alike)
            labels[choice.name] = f"{label} · {choice.graded[0].sampling if told else choice.name.rpartition('-')[2]}"
    return labels


def side_label(choice: Choice) -> str:
    """A side by model, how it was made, and what else of its grading was chosen."""
    one = choice.graded[0]
    parts = [choice.name if ":" in choice.name else model_words(one)]
    parts += [made(one)] if made(one) else []
    if choice.name == one.place:
        parts.append(f"on {one.benchmark}")
    parts += [] if is_graded_as_usual(one) else [grading_words(one)]
    return " · ".join(parts)


def model_words(one: Graded) -> str:
    """The student, or the recipe of a checkpoint."""
    return one.checkpoint_id.rpartition("-")[0] if one.checkpoint_id else str(one.model.get("name"))


def made(one: Graded) -> str:
    """`LoRA · χ², B = 3`: how a model was made, as far as its lineage says."""
    if one.checkpoint_id is None and not one.model.get("is_adapter"):
        return "untrained"
    checkpoint, selection = one.sources.get("checkpoints"), one.sources.get("selections")
    parts = [formats.method(str(checkpoint.manifest.config.get("method", "")))] if checkpoint else []
    if selection is not None and (rule := selection.manifest.config.get("rule")):
        budget = selection.manifest.config.get("budget")
        parts.append(formats.rule(str(rule)) + (f", B = {budget}" if budget and rule != "all" else ""))
    return " · ".join(part for part in parts if part)


def is_graded_as_usual(one: Graded) -> bool:
    """Whether the grading is what one gets without asking for another."""
    return {**GradeConfig().identity(), **one.grade.manifest.config} == GradeConfig().identity()


def grading_words(one: Graded) -> str:
    """`boxed, phrase, letter`: the rules of extraction in their order, and what else of the grading was chosen."""
    config = one.grade.manifest.config
    rules = [_RULES.get(str(rule), str(rule)) for rule in config.get("rules") or [one.grade.name]]
    extra = [f"as {config['answer_type']}"] if config.get("answer_type") else []
    extra += ["math-verify"] if config.get("equality") not in (None, "strict") else []
    return "graded by " + ", ".join(rules) + "".join(f" ({word})" for word in extra)
