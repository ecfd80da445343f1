"""The parts of a bundle: for each file that goes out, where it comes from and how it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lark_engine.sharing import leaving_files as leave
from lark_engine.sharing.bundle_format import KNOWN
from lark_engine.sharing.leaving import Leaving
from lark_engine.sharing.leaving_files import Write
from lark_engine.sharing.views import SavedView
from lark_engine.sharing.withheld import Texts
from lark_engine.store.workspace import MANIFEST, Artifact

Treatment = Literal["numbers", "texts", "redacted", "notes"]
_TOKEN_STATS = "token_stats"


class Part(NamedTuple):
    """A file of the bundle. `name`: from its root; `source`: the file that it is made from; `num_bytes`: that one's."""

    name: str
    source: Path
    treatment: Treatment
    num_bytes: int
    write: Write


@dataclass(frozen=True)
class Folder:
    """An artifact that goes out: its folder in the bundle, its files, and what of it stays (weights, logs, …)."""

    artifact: Artifact
    place: str
    parts: tuple[Part, ...]
    left_out_bytes: int

    def manifest(self, leaving: Leaving, sizes: dict[str, int]) -> dict[str, Any]:
        """What manifest.json says outside. `sizes`: of the files, by their names in the folder."""
        known = self.artifact.manifest
        said = known.model_dump(mode="json")
        said.update({key: leaving.value(said[key]) for key in ("config", "identity", "metrics", "drops", "inputs")})
        for key in ("teachers", "exclude_teachers"):  # as the tables name them
            if isinstance(known.config.get(key), list):
                said["config"][key] = [leaving.word(str(name)) for name in known.config[key]]
        listed = {name: size for name, size in sorted(sizes.items()) if name in known.files}
        return {**said, "name": leaving.folder_name(known.name), "files": listed}


def folder_of(artifact: Artifact, leaving: Leaving, texts: Texts, *, token_stats: bool) -> Folder:
    """What goes out of an artifact."""
    place = leaving.place(artifact)
    writers = _writers(artifact, leaving, texts)
    parts = [
        Part(f"{place}/{name}", path, treatment, path.stat().st_size, write(path))
        for name in KNOWN[artifact.kind]
        if (path := artifact.path / name).is_file() for treatment, write in (writers[name],)
    ]  # fmt: skip
    if token_stats and artifact.kind == "scores":
        for path in sorted((artifact.path / _TOKEN_STATS).glob("top*-*.parquet")):
            write = leave.tokens_table(path, leaving, texts)
            parts.append(Part(f"{place}/{_TOKEN_STATS}/{path.name}", path, "texts", path.stat().st_size, write))
    kept = {part.source for part in parts}
    left = [path for path in _own_files(artifact.path) if path not in kept and path.name != MANIFEST]
    return Folder(artifact, place, tuple(parts), sum(path.stat().st_size for path in left))


def _own_files(folder: Path) -> Iterator[Path]:
    """The files of an artifact without those of the grades that lie under it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "grades" not in path.relative_to(folder).parts[:1]:
            yield path


def _writers(
    artifact: Artifact, leaving: Leaving, texts: Texts
) -> dict[str, tuple[Treatment, Callable[[Path], Write]]]:
    benchmark = artifact.path.parents[1].name.rpartition("-")[0] if artifact.kind == "grades" else artifact.name
    of_benchmark = partial(texts.of_benchmark, benchmark)
    said: dict[str, Any] = {"leaving": leaving, "texts": texts}
    asked: dict[str, Any] = {**said, "benchmark": benchmark}
    numbers = partial(leave.numbers_table, leaving=leaving)
    return {
        "trajectories.parquet": ("texts", partial(leave.pool_table, **said)),
        "rejected.jsonl": ("texts", partial(leave.refusals, **said)),
        "rejected.json": ("texts", partial(leave.refusals, **said)),
        "flags.jsonl": ("notes", partial(leave.notes, leaving=leaving, goes_out=texts.of_pool)),
        "disputes.jsonl": ("notes", partial(leave.notes, leaving=leaving, goes_out=of_benchmark)),
        "events.jsonl": ("redacted", partial(leave.events, leaving=leaving)),
        "problems.json": ("texts", partial(leave.benchmark_file, **asked)),
        "scores.parquet": ("numbers", numbers),
        "token_bins.parquet": ("numbers", numbers),
        "selection.parquet": ("numbers", numbers),
        "held_out.parquet": ("numbers", numbers),
        "train.jsonl": ("texts", partial(leave.train_rows, **said)),
        "generations.jsonl": ("texts", partial(leave.generations, **asked)),
        "problems.jsonl": ("texts", partial(leave.asked_problems, **asked)),
        "grades.parquet": ("texts", partial(leave.grades_table, **asked)),
        **{
            name: ("redacted", partial(leave.json_file, leaving=leaving))
            for name in ("summary.json", "runs.json", "comparison.json", "metrics.json")
        },
    }  # fmt: skip


def view_parts(views: Sequence[SavedView], root: Path, leaving: Leaving) -> list[Part]:
    """The saved views."""
    parts = []
    for view in sorted(views, key=lambda view: view.id):
        path = root / "views" / f"{view.id}.json"
        write = leave.json_file(path, leaving)
        parts.append(Part(f"views/{view.id}.json", path, "redacted", path.stat().st_size, write))
    return parts
