"""What a job may run: commands of lark that are stages, and of those what the one who asks may start."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from lark_engine import access
from lark_engine.errors import AccessError, ConfigError
from lark_engine.sharing.shared import SHARED

_GROUPS = ("pool", "train", "select", "score", "benchmarks")


def require_lark(command: Sequence[str]) -> tuple[str, ...]:
    """The command as a tuple. Errors: `ConfigError` for one that is none of ours: a job runs stages, not programs."""
    if not command or command[0] != "lark" or len(command) < 2:
        said = " ".join(command[:3]) or "nothing"
        raise ConfigError(f"a job runs a command of lark, and not '{said}'; write it as: lark jobs submit lark train …")
    try:
        "".join(command).encode()
    except UnicodeEncodeError as error:
        raise ConfigError("a word of the command is no text (UTF-8); rename the file that it names") from error
    if command[1] == "demo" and "--no-dashboard" not in command:
        raise ConfigError("'lark demo' leaves a dashboard running, and a job leaves nothing; add --no-dashboard")
    if command[1] in ("jobs", "serve", "access", "views", "clean", "doctor"):
        raise ConfigError(f"'lark {command[1]}' is no stage; run it without a job")
    return tuple(command)


def require_right(root: Path, command: Sequence[str], cwd: Path) -> None:
    """Errors: `AccessError` for who may not start jobs, or not this one.

    A guest of a server starts stages, which write to the workspace. To write elsewhere, or to run programs that come
    with a model, is for those who may do everything.
    """
    who = access.require("launch")
    if not who.is_remote or "admin" in who.may:
        return
    for word, following in itertools.zip_longest(command, command[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        name = name.replace("_", "-").lower()
        if name in ("--trust-remote-code", "--server-python"):
            raise AccessError(f"you cannot start this here: {name} runs other programs, which is for an admin")
        if name.startswith("--output"):
            place = (cwd / (value if equals else following)).resolve()
            if not place.is_relative_to((root / SHARED).resolve()):
                raise AccessError(
                    f"you cannot start this here: {name} writes outside of {SHARED}/ of the workspace, which is for an "
                    "admin; leave it out"
                )


def stage_of(command: Sequence[str]) -> str:
    """The words before the first option: `train lora`."""
    words: list[str] = []
    for word in command[1:3]:
        if word.startswith("-") or (words and words[0] not in _GROUPS):
            break
        words.append(word)
    return " ".join(words) or command[0]
