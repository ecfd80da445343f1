"""What the files of a job say, as values: checked when they are read, whoever wrote them."""

from __future__ import annotations

import json
import math
import os
import time
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, Self, get_args

from lark_engine.errors import StoreError
from lark_engine.processes import ProcessIdentity
from lark_engine.store.atomic import open_regular

Request = Literal["after_checkpoint", "stop", "kill"]
# The later stands above the earlier: a request is never taken back by a weaker one.
REQUESTS: tuple[Request, ...] = ("after_checkpoint", "stop", "kill")
LauncherName = Literal["local", "ray", "terminal"]
SCHEMA_VERSION = 1
_RECORD_BYTES = 1024
_MOST_BYTES = 1 << 20
_LATEST = 1e11  # seconds since 1970


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What to run. `command` is what is shown and what is run: a list, never a shell's line.

    `devices`: how many devices of `device_kind` it waits for; of kind none it waits for nothing; `are_devices_given`:
    whether somebody said so, instead of the command. `max_retries`: how
    often it is run again after a failure that may be gone by itself. `address`: of the Ray cluster that it runs on.
    """

    stage: str
    command: tuple[str, ...]
    cwd: str
    priority: int = 0
    device_kind: Literal["cuda", "cpu", "none"] = "none"
    devices: int = 0
    are_devices_given: bool = False
    max_retries: int = 0
    launcher: LauncherName = "local"
    address: str | None = None
    cloned_from: str | None = None
    submitted_at: float = 0.0
    submitted_by: str = ""

    @classmethod
    def from_json(cls, values: Any, place: Path) -> Self:
        """Errors: `StoreError` when these are not the values of a spec that this version knows."""
        try:
            if values["schema_version"] > SCHEMA_VERSION:
                raise StoreError(f"{place}: was made by a newer version of LARK Studio; update this one")
            known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
            words = known["command"]
            if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
                raise ValueError("command")
            known["command"] = tuple(known["command"])
            for name, kind in _KINDS.items():
                if name in known and not isinstance(known[name], kind):
                    raise ValueError(name)
            if not 0 <= known.get("submitted_at", 0) < _LATEST:
                raise ValueError("submitted_at")
            for name, choices in _CHOICES.items():
                if name in known and known[name] not in choices:
                    raise ValueError(name)
            return cls(**known)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise StoreError(f"{place}: is no job's specification ({error}); remove the job") from error


_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "stage": str, "cwd": str, "priority": int, "device_kind": str, "devices": int, "max_retries": int,
    "launcher": str, "submitted_at": (int, float), "submitted_by": str,
}  # fmt: skip


_CHOICES = {"device_kind": ("cuda", "cpu", "none"), "launcher": get_args(LauncherName)}


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Who runs a job. `command`: the process that runs it, once it was started. `log_offset`: where its log begins."""

    supervisor: ProcessIdentity
    command: ProcessIdentity | None = None
    attempt: int = 1
    devices: tuple[str, ...] = ()
    started_at: float = 0.0
    command_started_at: float | None = None
    log_offset: int = 0
    adopted: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> Launch | None:
        try:
            supervisor = ProcessIdentity.from_json(values["supervisor"])
            if supervisor is None:
                return None
            at = values.get("command_started_at")
            return cls(
                supervisor=supervisor, command=ProcessIdentity.from_json(values.get("command")),
                attempt=int(values["attempt"]), devices=tuple(map(str, values["devices"])),
                started_at=float(values["started_at"]), command_started_at=at if at is None else float(at),
                log_offset=int(values["log_offset"]), adopted=bool(values.get("adopted")),
            )  # fmt: skip
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
            return None


def read_record(path: Path) -> dict[str, Any] | None:
    """A JSON object; None when the file is not there, not readable or not one. A list of jobs must not break on it."""
    try:
        with open_regular(path) as file:
            value = json.loads(file.read(_MOST_BYTES), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def number(value: object) -> float | None:
    """A finite number of a record; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


class Heartbeat:
    """The sign of life of a supervisor: one record of fixed size, written over in place."""

    def __init__(self, folder: Path):
        self._file = os.open(folder / "heartbeat", os.O_RDWR | os.O_CREAT, 0o644)

    def write(self, phase: str, *, waits_for: str = "") -> None:
        """Write phase, time and what is waited for, shortened to what the record has room for.

        `monotonic`: seconds on the clock that only a restart resets. Errors: `OSError`.
        """
        values = {"phase": phase, "time": round(time.time(), 3), "monotonic": round(time.monotonic(), 3)}
        if waits_for:
            room = _RECORD_BYTES - 1 - len(json.dumps({**values, "waits_for": ""}))
            values["waits_for"] = _shortened(waits_for, room)
        os.pwrite(self._file, json.dumps(values).ljust(_RECORD_BYTES - 1).encode() + b"\n", 0)

    def close(self) -> None:
        os.close(self._file)


def _shortened(text: str, num_bytes: int) -> str:
    """A text of at most `num_bytes` in JSON, where a character takes up to twelve; what is missing is an ellipsis."""
    ends = list(accumulate(len(json.dumps(character)) - 2 for character in text))
    if ends[-1] <= num_bytes:
        return text
    return text[: bisect_right(ends, num_bytes - len(json.dumps("…")) + 2)] + "…"


def read_heartbeat(folder: Path) -> dict[str, Any] | None:
    return read_record(folder / "heartbeat")
