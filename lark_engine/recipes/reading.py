"""Recipe files as data: strict YAML, with the line of every mistake."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, ScalarNode

from lark_engine.errors import ConfigError, StoreError
from lark_engine.store.atomic import open_regular

# Reading takes about 10 s a megabyte, and a recipe has a few hundred bytes.
_MOST_BYTES = 256 << 10
_LONGEST_NUMBER = 40


class _StrictLoader(yaml.SafeLoader):
    """YAML without tags, aliases or repeated keys: a recipe is data, and a typo is not a silent override."""

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    problem="a key is a word, not a list or a mapping", problem_mark=key_node.start_mark
                )
            if key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(problem=f"key '{key}' is given twice (line {line})")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        problem = None
        if isinstance(event, yaml.events.AliasEvent):
            problem = "aliases are not allowed in a recipe"
        elif getattr(event, "tag", None):
            problem = "tags are not allowed in a recipe"
        elif any("\ud800" <= character <= "\udfff" for character in getattr(event, "value", "")):
            problem = "a text holds half of a character (a lone surrogate)"
        if problem:
            raise yaml.composer.ComposerError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_number(self, node: ScalarNode) -> Any:
        """A number as YAML reads it. Some forms of it cost more than their length, or are too large to be printed."""
        if len(node.value) > _LONGEST_NUMBER:
            raise yaml.constructor.ConstructorError(
                problem=f"a number of {len(node.value):,} characters", problem_mark=node.start_mark
            )
        is_int = node.tag == "tag:yaml.org,2002:int"
        return self.construct_yaml_int(node) if is_int else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _StrictLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _StrictLoader.construct_number)

# "1e-4" is a number to everyone but YAML 1.1.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Errors: `ConfigError` with the line of the mistake; `StoreError` without a file to read."""
    try:
        with open_regular(path, follow=True) as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ConfigError(
                f"{path}: is larger than {_MOST_BYTES >> 10} kB, as no recipe is; is this the right file?"
            )
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise StoreError(f"{path}: no such file") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    except ValueError as error:  # a null byte in the path
        raise ConfigError(f"{str(path)!r} is no path of a file: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, place: str) -> dict[str, Any]:
    """The mapping that a YAML text holds; `place` is what errors call it.

    Errors: `ConfigError` with the line of the mistake.
    """
    if len(text) > _MOST_BYTES:
        raise ConfigError(f"{place}: is larger than {_MOST_BYTES >> 10} kB, as no recipe is")
    try:
        values = yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{place}:{mark.line + 1}" if mark else place
        raise ConfigError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{place}: a recipe is a mapping of keys to values; this holds {type(values).__name__}")
    return values


def key_lines(text: str) -> dict[str, int]:
    """The line of each key of a YAML mapping that `parse_yaml` reads."""
    node = yaml.compose(text, Loader=_StrictLoader)
    pairs = node.value if isinstance(node, MappingNode) else []
    return {str(key.value): key.start_mark.line + 1 for key, _ in pairs}


def yaml_line(name: str, value: Any) -> str:
    """One key with a plain value, in one line unless its text has several."""
    style = None if isinstance(value, list) else False
    return yaml.safe_dump({name: value}, default_flow_style=style, allow_unicode=True, width=1 << 20)
