"""Housekeeping, the decisions: what may go from a workspace, and why. `cleaning` looks at the disk and removes.

    trash        what an earlier cleaning left when it was killed
    unfinished   a folder without a manifest that no process holds and in which no file changed for `older_than_s`
    leftover     what a kill left in a finished artifact: `parts/`, `.*.partial`, `token_stats/.tokens-*`, and `resume/`
                 of checkpoints and pools; of any age, since nobody holds a lock there
    job          the folder of a job that ended so long ago, but for the newest `keep_jobs` that ended
    memo         on request, at any time
    unused       on request: finished artifacts that no result needs
    upload       on request, with them: files that came through the browser and are imported, or never were

The rule of `unused`: what stays, stays with all that it was made from. These stay of themselves: grades and sweeps
(they are the results), what people have disputed or flagged, what a saved view shows, whatever changed within
`older_than_s`, pools, students and benchmarks unless their kind is named (their sources may be gone), and with kinds
named every other kind. "Made from" is more than a manifest's `inputs`: an id, a fingerprint or a folder's name
anywhere in its config or identity counts too, for a student given as a path, or held-out data, stands only there. What
lies outside the workspace and refers to it is not known.

What cannot be known is not risked. What a running process reads is written nowhere yet: while a lock is held or a job
lives, `unused` is refused. A manifest that cannot be read may name anything: refused as well. An unfinished artifact
that may be resumed keeps all of the kinds that its kind is made from. A damaged artifact (its manifest is there, and
it or a file of it is not as it was written) is never removed: it was whole, and a person should look.

An upload is needed only until its import is finished: the pool holds all of it then. One that changed within
`older_than_s` stays, all stay while an unfinished pool may be resumed from one of them, and one that anything but a
finished pool names stays.

An evaluation's `resume/` is not a leftover: it is where disputes are locked. Ages are those of the newest file, by the
file system's times; a time to come, after a clock was set back, counts as now.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lark_engine.errors import ConfigError, StoreError, did_you_mean
from lark_engine.store.workspace import KINDS, MANIFEST, Kind, Manifest

Waste = Literal["trash", "unfinished", "leftover", "job", "memo", "unused", "upload"]
DAY_S = 86400.0
RESULTS: tuple[Kind, ...] = ("grades", "sweeps")
IMPORTED: tuple[Kind, ...] = ("pools", "students", "benchmarks")
ENDED = ("succeeded", "failed", "cancelled", "interrupted")
# What an unfinished artifact may need when it is resumed; which ones, only its manifest would say.
_MADE_FROM: Mapping[Kind, tuple[Kind, ...]] = {
    "pools": ("pools",), "students": (), "benchmarks": (),
    "scores": ("pools", "students", "checkpoints"),
    "selections": ("scores", "pools"),
    "checkpoints": ("selections", "students", "checkpoints", "benchmarks"),
    "sweeps": ("scores", "pools", "selections", "students", "checkpoints", "benchmarks"),
    "evals": ("checkpoints", "students", "benchmarks"),
    "grades": ("evals", "benchmarks"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """A job's folder and what is known of it. `ended_at`: seconds since 1970; None: the folder's newest file says."""

    path: Path
    state: str
    ended_at: float | None
    is_live: bool


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What may go, as the module says. `kinds`: with `unused`, only these; none for all but `IMPORTED`."""

    older_than_s: float = 7 * DAY_S
    keep_jobs: int = 200
    memo: bool = False
    unused: bool = False
    kinds: Collection[str] = ()

    def __post_init__(self) -> None:
        if not self.older_than_s >= 0 or self.keep_jobs < 0:
            raise ConfigError("an age and a number of jobs to keep must be 0 or more")
        if self.kinds and not self.unused:
            raise ConfigError("kinds limit what unused artifacts go; give --unused with --kind")
        for kind in self.kinds:
            if kind not in KINDS:
                raise ConfigError(f"no kind of artifact '{kind}'{did_you_mean(kind, KINDS)}")
            if kind in RESULTS:
                raise ConfigError(f"{kind} are results and never go by themselves; remove the folders that you mean")

    @property
    def removable(self) -> Collection[str]:
        """The kinds of which unused artifacts go."""
        return self.kinds or [kind for kind in KINDS if kind not in (*RESULTS, *IMPORTED)]


class Blocks(NamedTuple):
    """What an inode takes on disk, how many names it has in all, and how many of them are here."""

    num_bytes: int
    names: int
    names_here: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file, or a folder with all that is in it, as it lies on disk; links in it are not followed.

    `changed_at`: the time of its newest file, seconds since 1970; infinite where not all could be read. `is_held`: a
    process holds a lock in it. `link_to`: where it really lies, if it or a folder above it is a link.
    """

    path: Path
    changed_at: float
    blocks: Mapping[tuple[int, int], Blocks] = field(default_factory=dict)
    is_held: bool = False
    link_to: Path | None = None
    is_folder: bool = True


@dataclass(frozen=True, kw_only=True)
class Folder(Entry):
    """An artifact's folder. `manifest`: also of a damaged one, if it can be read."""

    kind: Kind
    state: Literal["finished", "unfinished", "damaged"]
    manifest: Manifest | None = None
    has_notes: bool = False
    leftovers: tuple[Entry, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What lies in a workspace at a time, and the jobs that are known of."""

    root: Path
    now: float
    folders: tuple[Folder, ...] = ()
    jobs: tuple[tuple[JobRecord, Entry], ...] = ()
    trash: tuple[Entry, ...] = ()
    memo: Entry | None = None
    uploads: tuple[Entry, ...] = ()
    shown: frozenset[str] = frozenset()
    """Names of folders that saved views show."""

    def age_s(self, changed_at: float) -> float:
        return max(0.0, self.now - changed_at)


@dataclass(frozen=True, kw_only=True)
class Removal:
    """One thing to remove, and why. `num_bytes`: what that frees, together with all that goes with it.

    `guarded_by`: the folder whose locks must be free. `needs`: what must stay if this does. What has a `link_to` is
    named and not removed.
    """

    entry: Entry
    waste: Waste
    why: str
    age_s: float
    guarded_by: Path
    needs: Collection[Path] = ()
    num_bytes: int = 0

    @property
    def path(self) -> Path:
        return self.entry.path


def plan_cleaning(found: Survey, policy: Policy) -> list[Removal]:
    """What goes, each thing once: trash first, and before an artifact what was made from it. Pure: reads nothing.

    Errors: `StoreError` with `unused` while something runs, and when a manifest cannot be read.
    """
    references = _references(found.folders)
    needed = {path for f in found.folders if f.state != "unfinished" for path in references[f.path]}
    old = {f.path for f in found.folders if found.age_s(f.changed_at) > policy.older_than_s}
    unfinished = [
        f for f in found.folders
        if f.state == "unfinished" and not f.is_held and not f.has_notes and f.path in old and f.path not in needed
    ]  # fmt: skip
    chosen: list[Removal] = []

    def add(entry: Entry, waste: Waste, why: str, **others: Any) -> None:
        others = {"age_s": found.age_s(entry.changed_at), "guarded_by": entry.path, **others}
        chosen.append(Removal(entry=entry, waste=waste, why=why, **others))

    for entry in found.trash:
        add(entry, "trash", "an earlier cleaning was stopped before its end")
    for folder in unfinished:
        add(folder, "unfinished", "was never finished, and nothing works on it")
    for folder in found.folders:
        if folder.state == "finished" and not folder.is_held:
            for entry in folder.leftovers:
                add(entry, "leftover", "its artifact is finished and needs it no more", guarded_by=folder.path)
    for record, entry, age_s in _old_jobs(found, policy):
        add(entry, "job", f"this job is over: {record.state}", age_s=age_s)
    if policy.memo and found.memo is not None and found.folders:  # a folder of that name alone need not be ours
        add(found.memo, "memo", "is derived and made again when it is needed")
    if policy.unused:
        for folder in _unused(found, policy, references, old, {f.path for f in unfinished if f.link_to is None}):
            add(folder, "unused", "no result that is kept was made from it", needs=references[folder.path])
    if policy.unused and not policy.kinds:
        for entry, why in _idle_uploads(found, policy, {r.path for r in chosen if r.entry.link_to is None}):
            add(entry, "upload", why, guarded_by=entry.path.parent)
    return _sized(_outermost(chosen))


def _old_jobs(found: Survey, policy: Policy) -> list[tuple[JobRecord, Entry, float]]:
    """The jobs that ended long ago, with the seconds since, but for the newest."""
    ended = [
        (record, entry, found.age_s(entry.changed_at if record.ended_at is None else record.ended_at))
        for record, entry in found.jobs
        if record.state in ENDED and not record.is_live and not entry.is_held
    ]  # fmt: skip
    ended.sort(key=lambda item: (item[2], item[0].path))
    return [item for item in ended[policy.keep_jobs :] if item[2] > policy.older_than_s]


def _unused(
    found: Survey, policy: Policy, references: Mapping[Path, set[Path]], old: set[Path], going: set[Path]
) -> list[Folder]:
    """The finished artifacts that nothing which stays was made from, newest first."""
    _refuse_unknown(found)
    resumable = [f for f in found.folders if f.state == "unfinished" and f.path not in going]
    reserved = {kind for f in resumable for kind in _MADE_FROM[f.kind]}
    finished = [f for f in found.folders if f.state == "finished"]
    own = {
        f.path for f in finished
        if f.path not in old or f.has_notes or f.path.name in found.shown
        or f.kind in reserved or f.kind not in policy.removable
    }  # fmt: skip
    roots = own | {f.path for f in found.folders if f.state == "damaged"} | {f.path for f in resumable}
    links = {f.path for f in finished if f.link_to is not None}
    for_itself = _reachable(roots, references)
    kept = for_itself | _reachable(links, references)
    unused = [f for f in finished if f.path not in kept or (f.path in links and f.path not in for_itself)]
    return sorted(unused, key=lambda f: f.manifest.created_at if f.manifest else "", reverse=True)


def _idle_uploads(found: Survey, policy: Policy, going: set[Path]) -> list[tuple[Entry, str]]:
    """The uploads that no import needs any more, each with the reason."""
    staying = [f for f in found.folders if f.path not in going]
    if any(f.kind == "pools" and f.state == "unfinished" for f in staying):
        return []
    named: dict[str, set[str]] = {"pools": set(), "others": set()}
    for folder in staying:
        whose = "pools" if folder.kind == "pools" and folder.state == "finished" else "others"
        if folder.manifest is not None:
            named[whose].update(_words(folder.manifest.model_dump(include={"config", "identity"})))
    return [
        (entry, "its pool holds all that was imported of it" if entry.path.name in named["pools"]
         else "no pool was imported from it")
        for entry in found.uploads
        if found.age_s(entry.changed_at) > policy.older_than_s and entry.path.name not in named["others"]
    ]  # fmt: skip


def _refuse_unknown(found: Survey) -> None:
    """Errors: `StoreError` when it cannot be known what is needed."""
    live = [f.path for f in found.folders if f.is_held]
    live += [record.path for record, entry in found.jobs if record.is_live or entry.is_held]
    if live:
        raise StoreError(
            f"{live[0]}: something works on it now, and what that needs is not known; remove unused artifacts when "
            "nothing runs"
        )
    unknown = [f.path for f in found.folders if f.state == "damaged" and f.manifest is None]
    if unknown:
        raise StoreError(
            f"{unknown[0] / MANIFEST}: cannot be read, and so it is not known what this artifact was made from; make "
            "it again or remove its folder, and then unused artifacts"
        )


def _references(folders: Sequence[Folder]) -> dict[Path, set[Path]]:
    """Each folder's own sources: what its manifest names by id, fingerprint or path, and the folder it lies in."""
    named: dict[str, set[Path]] = {}
    for folder in folders:
        manifest = folder.manifest
        for name in {folder.path.name, *((manifest.fingerprint,) if manifest else ())}:
            named.setdefault(name, set()).add(folder.path)
    found: dict[Path, set[Path]] = {}
    for folder in folders:
        sources = {folder.path.parents[1]} if folder.kind == "grades" else set()
        if (manifest := folder.manifest) is not None:
            words = set(_words(manifest.model_dump(include={"config", "identity", "inputs"})))
            if folder.link_to is not None:  # to an artifact of this workspace, perhaps
                words.add(manifest.fingerprint)
            sources.update(*(named.get(word, set()) for word in words))
        found[folder.path] = sources - {folder.path}
    return found


def _words(value: Any) -> Iterator[str]:
    """Every text in nested values, with the parts of a path."""
    if isinstance(value, str):
        yield from re.split(r"[/=]", value)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _words(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _words(part)


def _reachable(roots: Iterable[Path], references: Mapping[Path, set[Path]]) -> set[Path]:
    found: set[Path] = set()
    front = set(roots)
    while front:
        found |= front
        front = set().union(*(references.get(path, set()) for path in front)) - found
    return found


def _outermost(chosen: Sequence[Removal]) -> list[Removal]:
    """Without what goes with the folder that it lies in."""
    paths = {removal.path for removal in chosen if removal.entry.link_to is None}
    return [removal for removal in chosen if paths.isdisjoint(removal.path.parents)]


def _sized(chosen: Sequence[Removal]) -> list[Removal]:
    """With the bytes that each frees: an inode counts once, and only if none of its names stays."""
    going = [removal.entry.blocks if removal.entry.link_to is None else {} for removal in chosen]
    names: Counter[tuple[int, int]] = Counter()
    for blocks in going:
        names.update({inode: part.names_here for inode, part in blocks.items()})
    counted: set[tuple[int, int]] = set()
    sized = []
    for removal, blocks in zip(chosen, going, strict=True):
        freed = [inode for inode, part in blocks.items() if inode not in counted and names[inode] >= part.names]
        counted.update(freed)
        sized.append(replace(removal, num_bytes=sum(blocks[inode].num_bytes for inode in freed)))
    return sized
