"""`lark bundle`: a read-only part of a workspace as one zip with checksums, redacted, and with the texts chosen for it.

Nothing in the workspace is changed. What goes out is listed before (`preview_bundle`) and in the bundle itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from lark_engine import __version__, access
from lark_engine.errors import ConfigError
from lark_engine.results.lineage import Lineage
from lark_engine.results.stale import Staleness
from lark_engine.sharing.bundle_choice import BundleChoice, chosen_artifacts, chosen_scores
from lark_engine.sharing.bundle_format import SCHEMA_VERSION, BundleRecord, FileEntry, is_known
from lark_engine.sharing.bundle_parts import Folder, Part, Treatment, folder_of, view_parts
from lark_engine.sharing.chosen_texts import chosen_texts
from lark_engine.sharing.leaving import Leaving
from lark_engine.sharing.redaction import Redactor, Replacement
from lark_engine.sharing.views import SavedView, read_views
from lark_engine.sharing.withheld import Texts
from lark_engine.store.atomic import existing_parent, replacing, require_space
from lark_engine.store.shown import BUNDLE
from lark_engine.store.workspace import KINDS, MANIFEST, Artifact, Workspace

log = logging.getLogger(__name__)

SUFFIX = ".zip"
# A zip knows no time that all machines agree on; ours is in the record.
_NO_TIME = (1980, 1, 1, 0, 0, 0)
_IN_MEMORY = 16 << 20
_CHUNK = 1 << 20
# Of more than this, what goes out is written once only, and its size before is an estimate.
SMALL_BYTES = 8 << 20
_QUICK: frozenset[Treatment] = frozenset(("redacted", "notes"))


@dataclass(frozen=True)
class BundlePlan:
    """A bundle before it is written: its folders, its views, and how names and texts leave."""

    workspace: Workspace
    choice: BundleChoice
    scores: Artifact
    folders: tuple[Folder, ...]
    views: tuple[Part, ...]
    texts: Texts
    leaving: Leaving
    stale: dict[str, tuple[str, ...]]

    @property
    def parts(self) -> list[Part]:
        """Every file but the manifests and the record."""
        return [*(part for folder in self.folders for part in folder.parts), *self.views]

    @property
    def num_bytes(self) -> int:
        """What the files take in the workspace."""
        return sum(part.num_bytes for part in self.parts)


class Leaves(NamedTuple):
    """A file of the preview: what it is called outside, its size in bytes there, and how it goes out.

    `how`: `as it is`, `redacted`, `without texts`, `with the texts chosen`, or `with its texts`.
    """

    name: str
    num_bytes: int
    how: str


class BundlePreview(NamedTuple):
    """What goes out. `is_exact`: the sizes are those in the bundle and `replaced` is all that is replaced; otherwise
    the sizes are those in the workspace, and texts and tables were not read for it."""

    files: list[Leaves]
    replaced: Counter[Replacement]
    num_problems_with_texts: int
    left_out_bytes: int
    is_exact: bool


class BundleMade(NamedTuple):
    """A bundle that was written: where, its size in bytes, its SHA-256, its record, and what was replaced in it."""

    path: Path
    num_bytes: int
    sha256: str
    record: BundleRecord
    replaced: Counter[Replacement]


def plan_bundle(choice: BundleChoice, workspace: Workspace) -> BundlePlan:
    """Which files go out. Errors: `ConfigError`, `StoreError` for what cannot be chosen."""
    choice.check()
    artifacts = chosen_artifacts(choice, workspace)
    redactor = Redactor(workspace, enabled=choice.redact)
    leaving = Leaving(artifacts, workspace.root, redactor)
    texts = chosen_texts(choice, artifacts)
    folders = [folder_of(artifact, leaving, texts, token_stats=choice.token_stats) for artifact in artifacts]
    staleness = Staleness(Lineage(workspace))
    stale = {f.artifact.id: tuple(reasons) for f in folders if (reasons := staleness.of(f.artifact))}
    views = view_parts(_views_of(artifacts, workspace), workspace.root, leaving)
    scores = chosen_scores(choice, workspace)
    return BundlePlan(workspace, choice, scores, tuple(folders), tuple(views), texts, leaving, stale)


def preview_bundle(plan: BundlePlan, *, is_exact: bool | None = None) -> BundlePreview:
    """What would go out. `is_exact`: write everything once, to nowhere; by default where that is quick.

    Errors: `StoreError` for a file that is damaged.
    """
    exact = plan.num_bytes <= SMALL_BYTES if is_exact is None else is_exact
    plan.leaving.redactor.replaced.clear()
    files = []
    for folder in plan.folders:
        sizes = {}
        for part in folder.parts:
            size = _measured(part) if exact or part.treatment in _QUICK else part.num_bytes
            sizes[part.name.removeprefix(f"{folder.place}/")] = size
            files.append(Leaves(part.name, size, _how(part.treatment, plan.choice)))
        manifest = _manifest_text(folder, plan.leaving, sizes)
        files.append(Leaves(f"{folder.place}/{MANIFEST}", len(manifest.encode()), _how("redacted", plan.choice)))
    files += [Leaves(part.name, _measured(part), _how(part.treatment, plan.choice)) for part in plan.views]
    return BundlePreview(
        sorted(files), Counter(plan.leaving.redactor.replaced), _num_with_texts(plan),
        sum(folder.left_out_bytes for folder in plan.folders), exact,
    )  # fmt: skip


def _how(treatment: Treatment, choice: BundleChoice) -> str:
    if treatment in ("texts", "notes"):
        return {"none": "without texts", "chosen": "with the texts chosen", "all": "with its texts"}[choice.texts]
    return "redacted" if treatment == "redacted" and choice.redact else "as it is"


def write_bundle(plan: BundlePlan, output: Path) -> BundleMade:
    """Write the bundle, whole or not at all. One at `output` is replaced.

    Errors: `ConfigError` for a name that is none of a zip; `StoreError` when it cannot be written, or a file is
    damaged; `AccessError` for who may not start anything there.
    """
    if output.suffix != SUFFIX:
        raise ConfigError(f"{output}: a bundle is a zip; give a name that ends with {SUFFIX}")
    output = output.absolute()
    access.require("launch")
    if not output.is_relative_to(plan.workspace.root):  # nothing of the workspace changes
        return _write(plan, output)
    with access.action(plan.workspace.root, "launch", "bundle.make", bundle=output.name, texts=plan.choice.texts):
        return _write(plan, output)


def _write(plan: BundlePlan, output: Path) -> BundleMade:
    require_space(existing_parent(output.parent), plan.num_bytes, "this bundle")
    plan.leaving.redactor.replaced.clear()
    entries: dict[str, FileEntry] = {}
    with replacing(output) as partial:
        with zipfile.ZipFile(partial, "w", allowZip64=True) as archive:
            for number, folder in enumerate(plan.folders, 1):
                log.info("bundle: %d of %d: %s", number, len(plan.folders), folder.place)
                entries.update(_add_folder(archive, folder, plan.leaving))
            entries.update((part.name, _add_part(archive, part)) for part in plan.views)
            record = _record(plan, entries)
            _add_text(archive, BUNDLE, json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")
        size, digest = partial.stat().st_size, sha256_of(partial)
    log.info("bundle: %s, %d files, %d bytes, sha256 %s", output, len(entries) + 1, size, digest)
    return BundleMade(output, size, digest, record, Counter(plan.leaving.redactor.replaced))


def _add_folder(archive: zipfile.ZipFile, folder: Folder, leaving: Leaving) -> dict[str, FileEntry]:
    """The files of an artifact, and its manifest last, which knows their sizes."""
    entries = {part.name: _add_part(archive, part) for part in folder.parts}
    sizes = {name.removeprefix(f"{folder.place}/"): entry.size for name, entry in entries.items()}
    name = f"{folder.place}/{MANIFEST}"
    return {**entries, name: _add_text(archive, name, _manifest_text(folder, leaving, sizes))}


def _manifest_text(folder: Folder, leaving: Leaving, sizes: dict[str, int]) -> str:
    return json.dumps(folder.manifest(leaving, sizes), indent=2, ensure_ascii=False) + "\n"


def _record(plan: BundlePlan, entries: dict[str, FileEntry]) -> BundleRecord:
    counts = Counter[str]()
    for replacement, number in plan.leaving.redactor.replaced.items():
        counts[replacement.kind] += number
    return BundleRecord(
        schema_version=SCHEMA_VERSION, title=plan.leaving.text(plan.choice.title), lark_version=__version__,
        created_at=datetime.now(UTC).replace(microsecond=0), scores=(_outside_id(plan),), texts=plan.choice.texts,
        num_problems_with_texts=_num_with_texts(plan), redacted=plan.choice.redact,
        replaced=dict(sorted(counts.items())),
        stale={
            plan.leaving.text(name): tuple(map(plan.leaving.text, reasons)) for name, reasons in plan.stale.items()
        },
        files=dict(sorted(entries.items())),
    )  # fmt: skip


def _outside_id(plan: BundlePlan) -> str:
    return plan.leaving.place(plan.scores).rpartition("/")[2]


def _num_with_texts(plan: BundlePlan) -> int:
    """Problems whose texts go out, of pools and benchmarks together."""
    if plan.choice.texts == "chosen":
        return len(plan.texts.pool) + sum(map(len, plan.texts.benchmarks.values()))
    counted = ("pools", "evals") if plan.choice.texts == "all" else ()
    return sum(f.artifact.manifest.counts.get("num_problems", 0) for f in plan.folders if f.artifact.kind in counted)


def _add_part(archive: zipfile.ZipFile, part: Part) -> FileEntry:
    assert archive.filename is not None
    with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(Path(archive.filename).parent)) as file:
        part.write(file)
        file.seek(0)
        return _add(archive, part.name, file)


def _add_text(archive: zipfile.ZipFile, name: str, text: str) -> FileEntry:
    return _add(archive, name, io.BytesIO(text.encode("utf-8", "replace")))


def _add(archive: zipfile.ZipFile, name: str, file: IO[bytes]) -> FileEntry:
    """Copy a file into the zip. Tables are packed already."""
    assert name == BUNDLE or is_known(name), f"{name} is no file of a bundle"
    info = zipfile.ZipInfo(name, _NO_TIME)
    info.compress_type = zipfile.ZIP_STORED if name.endswith(".parquet") else zipfile.ZIP_DEFLATED
    info.external_attr = 0o100644 << 16
    digest, size = hashlib.sha256(), 0
    with archive.open(info, "w", force_zip64=True) as entry:
        for chunk in _chunks(file):
            digest.update(chunk)
            size += len(chunk)
            entry.write(chunk)
    return FileEntry(size=size, sha256=digest.hexdigest())


class _Nowhere(io.BytesIO):
    """A file that keeps nothing of what is written into it but how much it was."""

    num_bytes = 0

    def write(self, content: Any) -> int:
        size = memoryview(content).nbytes
        self.num_bytes += size
        return size

    def tell(self) -> int:
        return self.num_bytes


def _measured(part: Part) -> int:
    file = _Nowhere()
    part.write(file)
    return file.num_bytes


def _views_of(artifacts: Iterable[Artifact], workspace: Workspace) -> list[SavedView]:
    """The saved views that show nothing which stays behind: no job, and no artifact that is not in the bundle."""
    kept = {artifact.id for artifact in artifacts}
    others = {a.id for kind in KINDS for a in workspace.list(kind)} - kept
    return [
        view for view in read_views(workspace.root).views
        if view.page != "jobs" and not any(name in value for _, value in view.params for name in others)
    ]  # fmt: skip


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in _chunks(file):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
