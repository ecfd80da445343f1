"""Training recipes as text, both ways: with what is changed marked, and read with the line of every mistake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lark_engine.config import TrainConfig
from lark_engine.config.fields import problems_with
from lark_engine.errors import ConfigError, did_you_mean
from lark_engine.recipes import RELEASED_NAMES, our_names
from lark_engine.recipes.batches import problem_with_batch, with_global_batch
from lark_engine.recipes.reading import key_lines, parse_yaml, yaml_line

# What a recipe may hold beside the options of training.
_OWN_KEYS = ("grad_accum",)


def recipe_text(base: Mapping[str, Any], changed: Mapping[str, Any]) -> str:
    """The text of a recipe with other values in it; each line that differs says what the recipe had.

    `base`: the values that the recipe gives; `changed`: those that stand in their place, or beside them.
    """
    lines = []
    for name in dict.fromkeys((*base, *changed)):
        line = yaml_line(name, _plain(changed.get(name, base.get(name))))
        if name in changed:
            before = base[name] if name in base else TrainConfig.model_fields[name].get_default()
            said = " ".join(yaml_line("was", _plain(before)).removeprefix("was:").split())
            note = f"# {'recipe' if name in base else 'default'}: {said}"
            line = f"{line.rstrip()}  {note}\n" if line.count("\n") == 1 else f"{note}\n{line}"
        lines.append(line)
    return "".join(lines)


def read_recipe(text: str, place: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe's text, in our names, checked as training would with `given` beside them.

    Errors: `ConfigError` that begins with `place` and the line of the mistake.
    """
    said = parse_yaml(text, place)
    lines = {RELEASED_NAMES.get(name, name): line for name, line in key_lines(text).items()}
    try:
        values = our_names(said)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None
    known = TrainConfig.model_fields
    for name in values:
        if name not in known and name not in _OWN_KEYS:
            hint = did_you_mean(str(name), known)
            raise ConfigError(f"{place}:{lines.get(str(name), 1)}: unknown key '{name}'{hint}")
    if (problem := problem_with_batch(values)) is not None:
        name, sentence = problem
        raise ConfigError(f"{place}:{lines.get(name, 1)}: '{name}': {sentence}")
    values = with_global_batch(values)
    checked = {**given, **values}
    problems = problems_with(lambda: TrainConfig.model_validate(checked), known)
    if problems:
        name = min(problems, key=lambda name: (lines.get(name, len(text)), name))
        where = f"{place}:{lines[name]}" if name in lines else place
        what = f"'{name}': " if name else ""
        raise ConfigError(f"{where}: {what}{problems[name]}")
    config = TrainConfig.model_validate(checked)
    return {name: getattr(config, name) for name in values}


def _plain(value: Any) -> Any:
    """A value as YAML writes it."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
