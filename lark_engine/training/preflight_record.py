"""What a preflight found, as values that are kept in its job's folder and read by who shows them; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lark_engine.jobs.needs import flag

# In the folder of the job that ran it.
PREFLIGHT = "preflight.json"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A trajectory of the first forward pass: what is read (no loss), what is trained on, and with what coefficient.

    `coefficient` is that of each response token, w / T or w / T̄; `share` that of the whole trajectory among those of
    its optimizer step.
    """

    label: str
    teacher: str
    num_prompt_tokens: int
    num_response_tokens: int
    coefficient: float
    share: float
    prompt: str
    response: str


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What will be trained, what it will take, and what stands against it (`problems`, sentences; empty = ready)."""

    checkpoint: str
    run: str
    num_sequences: int
    num_truncated: int
    drops: dict[str, int]
    num_held_out: int
    num_held_out_truncated: int
    template: str
    first_batch: list[Shown]
    gradient_ratio: float | None
    trainable_parameters: int
    steps: int
    tokens: int
    hours: float
    hours_basis: str
    memory_gb: float
    memory_free_gb: float
    memory_basis: str
    disk_gb: float
    disk_free_gb: float
    resume_step: int | None
    resume: str
    problems: list[str]

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        return asdict(self)


def read_preflight(folder: Path) -> Preflight | None:
    """What the preflight of a job found; None without one, and for one of another version."""
    try:
        return _adapter.validate_json((folder / PREFLIGHT).read_bytes())
    except (OSError, ValidationError):
        return None


def is_preflight(command: Sequence[str]) -> bool:
    """Whether a command only looks at a training run, and trains nothing."""
    return tuple(command[1:2]) == ("train",) and bool(flag(command, "preflight") or flag(command, "json"))


_adapter = TypeAdapter(Preflight)
