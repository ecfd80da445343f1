"""What a bundle is: a part of a workspace in one zip, with a record of every file in it.

    bundle.json    {schema_version, title, created_at, texts, redacted, files: name → size, sha256, …}
    pools/<id>/…   scores/<id>/…   …   views/<id>.json: as in a workspace, and nothing that is not listed here

Models and adapters are there by their manifest only: a bundle holds no weights, no resume state, nothing that could be
run. Who writes one and who unpacks one go by the same `KNOWN`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from lark_engine.errors import StoreError
from lark_engine.store.atomic import open_regular
from lark_engine.store.shown import BUNDLE
from lark_engine.store.workspace import MANIFEST, Kind, Workspace

SCHEMA_VERSION = 1
MOST_RECORD_BYTES = 16 << 20
WITHHELD = "(texts are not part of this bundle)"
"""What stands for a text that did not go out."""
TextsOut = Literal["none", "chosen", "all"]
TEXTS: tuple[TextsOut, ...] = get_args(TextsOut)

KNOWN: dict[Kind, tuple[str, ...]] = {
    "pools": ("trajectories.parquet", "rejected.jsonl", "flags.jsonl", "events.jsonl"),
    "students": (),
    "benchmarks": ("problems.json", "rejected.json"),
    "scores": ("scores.parquet", "token_bins.parquet", "events.jsonl"),
    "selections": ("selection.parquet", "train.jsonl"),
    "checkpoints": ("events.jsonl", "summary.json", "held_out.parquet"),
    "sweeps": ("runs.json", "comparison.json"),
    "evals": ("generations.jsonl", "problems.jsonl", "disputes.jsonl", "events.jsonl"),
    "grades": ("grades.parquet", "metrics.json", "events.jsonl"),
}
"""The files of each kind of artifact that a bundle may hold beside the manifest."""

_ID = r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,199}"
_FOLDERS: dict[Kind, str] = {
    **{kind: rf"{kind}/{_ID}" for kind in KNOWN},
    "evals": rf"evals/{_ID}/{_ID}",
    "grades": rf"evals/{_ID}/{_ID}/grades/{_ID}",
}
_KNOWN_NAME = re.compile(
    "|".join([
        *(rf"{_FOLDERS[kind]}/(?:{'|'.join(map(re.escape, (MANIFEST, *files)))})" for kind, files in KNOWN.items()),
        rf"scores/{_ID}/token_stats/top\d{{2}}-\d{{1,9}}\.parquet",
        r"views/[a-z]{8,32}\.json",
    ])
)  # fmt: skip


def is_known(name: str) -> bool:
    """Whether a bundle may hold a file of this name, from its root."""
    return _KNOWN_NAME.fullmatch(name) is not None


class FileEntry(BaseModel):
    """A file of a bundle: its size in bytes and the SHA-256 of its content."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class BundleRecord(BaseModel):
    """bundle.json. `files`: all but itself. `scores`: the ids that it was made for. `replaced`: how often paths, hosts
    and users were replaced, by kind. `stale`: artifact id → why it was stale when the bundle was made."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int
    title: Annotated[str, StringConstraints(max_length=200)] = ""
    created_at: AwareDatetime
    lark_version: Annotated[str, StringConstraints(max_length=40)] = ""
    scores: tuple[str, ...] = ()
    texts: TextsOut
    num_problems_with_texts: Annotated[int, Field(ge=0)] = 0
    redacted: bool
    replaced: dict[str, int] = Field(default_factory=dict)
    stale: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    files: dict[str, FileEntry]


def bundle_of(workspace: Workspace) -> BundleRecord | None:
    """The record of a workspace that was unpacked from a bundle; None for a workspace of one's own.

    Errors: `StoreError` when the record is damaged.
    """
    return read_record(workspace.root)


def read_record(root: Path) -> BundleRecord | None:
    """The same by the folder."""
    path = root / BUNDLE
    try:
        with open_regular(path) as file:
            return BundleRecord.model_validate_json(file.read(MOST_RECORD_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: is no record of a bundle; unpack the bundle again: lark serve BUNDLE.zip") from error
