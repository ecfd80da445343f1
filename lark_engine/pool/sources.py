"""What a user's `source` is, what its content's identity is, and its rows as one stream.

| source | read as |
|---|---|
| file | JSONL, plain, gzip or zstd; a JSON list (.json); Parquet. The content decides, not the suffix |
| folder of folders with .json lists | `<teacher>/<file>.json`: element i of every file is problem i; file j of all, sorted, is candidate j |
| folder with .parquet or .jsonl files | these files in the order of their names; `train-00000-of-00002` names a split |
| folder from `Dataset.save_to_disk` | that dataset, or the asked split of it |
| `owner/name` | dataset of the Hugging Face hub, by its commit; folder-of-teachers repositories are downloaded as such |
"""  # noqa: E501

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from lark_engine.config import PoolConfig
from lark_engine.errors import PoolError, first_line
from lark_engine.pool.readers import (
    Budget,
    SourceRow,
    is_parquet,
    open_bytes,
    read_json_list,
    read_jsonl,
    read_parquet,
)
from lark_engine.pool.rejections import clean_text
from lark_engine.store.fingerprint import fingerprint, hash_file
from lark_engine.store.workspace import slug

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SPLIT_NAME = re.compile(r"(train|test|validation|valid|val|dev)(?=[-._])|\w+(?=-\d{5}-of-\d{5})")
_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst", ".jsonl.zstd")
_LISTS = (".json", ".json.gz", ".json.zst")
_TABLES = (".parquet",)
# What the name of a file that is read may end with, the longest first.
SUFFIXES = (*_LINES, *_LISTS, *_TABLES, ".gz", ".zst", ".zstd")
_WHAT = "give a file (.jsonl, .gz, .zst, .parquet), a folder of teachers, or a Hugging Face dataset id (owner/name)"

Format = Literal["files", "teachers", "arrow", "hub"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A resolved source. `files` are all files whose content makes the pool, in reading order."""

    format: Format
    label: str
    root: Path = Path()
    files: tuple[Path, ...] = ()
    dataset_id: str | None = None
    revision: str | None = None
    split: str = "train"
    sizes: tuple[int, ...] = field(default=())

    @property
    def name(self) -> str:
        """A safe name for the pool: the source's without its suffixes."""
        name = self.label.rstrip("/").rsplit("/", 1)[-1]
        while (suffix := next((s for s in SUFFIXES if name.lower().endswith(s)), None)) and len(name) > len(suffix):
            name = name[: -len(suffix)]
        return slug(name)

    @property
    def total(self) -> int:
        """Bytes on disk to read; 0 when unknown (hub datasets)."""
        return sum(self.sizes)

    def place(self, file: Path) -> str:
        """A file's name in places: relative to the source's folder."""
        return clean_text(file.name if file == self.root else file.relative_to(self.root).as_posix())


def resolve_source(config: PoolConfig) -> Source:
    """Find out what the source is. Errors: `PoolError` when it is absent, unreadable, empty or of no known format."""
    path = Path(config.source).expanduser()
    if not path.exists():
        if HUB_ID.fullmatch(config.source) and not config.source.lower().endswith(SUFFIXES):
            return _resolve_hub(config)
        raise PoolError(f"{config.source}: no such file or folder; {_WHAT}")
    if config.revision is not None:
        raise PoolError(f"{config.source}: --revision means a Hugging Face dataset, this is a local path; leave it out")
    if path.is_dir():
        return _resolve_folder(path, config.source, config.split)
    return _local("files", config.source, path, [path])


def _resolve_folder(path: Path, label: str, split: str) -> Source:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        folder = path if (path / "state.json").is_file() else path / split
        if not folder.is_dir():
            splits = ", ".join(sorted(p.name for p in path.iterdir() if p.is_dir()))
            raise PoolError(f"{label}: the dataset has no split '{split}'; give one of these with --split: {splits}")
        _refuse_links([folder, *sorted(folder.iterdir())], path, label)
        return _local("arrow", label, folder, _arrow_files(folder, label))
    visible = [p for p in sorted(path.rglob("*")) if p.is_file() and not _is_hidden(p.relative_to(path))]
    _refuse_links(visible, path, label)
    lists = [p for p in visible if p.parent.parent == path and p.name.lower().endswith(_LISTS)]
    for suffixes in (_TABLES, _LINES):
        if files := [p for p in visible if p.name.lower().endswith(suffixes)]:
            if lists:
                raise PoolError(
                    f"{label}: holds both teacher lists ({lists[0].relative_to(path)}) and tables "
                    f"({files[0].relative_to(path)}); give the folder or the file that you mean"
                )
            return _local("files", label, path, _of_split(files, label, split))
    if lists:
        return _local("teachers", label, path, lists)
    raise PoolError(f"{label}: the folder holds neither <teacher>/<file>.json lists nor .jsonl or .parquet; {_WHAT}")


def _arrow_files(folder: Path, label: str) -> list[Path]:
    """The files that a saved dataset says it consists of. Errors: `PoolError` for one that lies elsewhere."""
    try:
        names = [str(file["filename"]) for file in json.loads((folder / "state.json").read_bytes())["_data_files"]]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise PoolError(f"{label}: the saved dataset is damaged ({first_line(error)}); save or copy it again") from None
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise PoolError(
                f"{folder / 'state.json'}: names the file {clean_text(name)[:120]!r}, which does not lie beside it; "
                "save or copy the dataset again"
            )
    return [folder / name for name in names]


def _refuse_links(files: Sequence[Path], folder: Path, label: str) -> None:
    """A folder that came from elsewhere must not name files of this machine that were never in it.

    Errors: `PoolError` for a link that leads out of the folder. In a download of the hub's all files are links into the
    same repository's `blobs`.
    """
    root = folder.resolve()
    inside = root.parent.parent if root.parent.name == "snapshots" else root
    for file in files:
        if not (real := file.resolve()).is_relative_to(inside):
            raise PoolError(
                f"{label}: {file.relative_to(folder)} is a link to {real}, outside the folder; if you mean that file, "
                "copy it there"
            )


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _of_split(files: list[Path], label: str, split: str) -> list[Path]:
    """The files of one split, where all names tell (train-00000-of-00002.parquet, test.jsonl); else all."""
    splits = {file: match[0] for file in files if (match := _SPLIT_NAME.match(file.name))}
    if len(splits) < len(files):
        return files
    if split not in splits.values():
        known = ", ".join(sorted(set(splits.values())))
        raise PoolError(f"{label}: the folder has no split '{split}'; give one of these with --split: {known}")
    return [file for file in files if splits[file] == split]


def _local(format: Format, label: str, root: Path, files: list[Path]) -> Source:
    for file in files:
        if not os.access(file, os.R_OK):
            raise PoolError(f"{file}: no permission to read the file; change its permissions")
    sizes = tuple(file.stat().st_size for file in files)
    if not sum(sizes):
        raise PoolError(f"{label}: the file is empty; {_WHAT}")
    return Source(format=format, label=label, root=root, files=tuple(files), sizes=sizes)


def _resolve_hub(config: PoolConfig) -> Source:
    """A dataset of the hub at one commit, so that the same plan always means the same content."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        info = HfApi().dataset_info(config.source, revision=config.revision)
        names = [Path(str(item.rfilename)) for item in info.siblings or []]
        lists = [n for n in names if len(n.parts) == 2 and n.name.lower().endswith(_LISTS) and not _is_hidden(n)]
        if lists and not any(n.name.lower().endswith((*_LINES, *_TABLES)) for n in names):
            patterns = [n.as_posix() for n in lists]
            folder = snapshot_download(config.source, repo_type="dataset", revision=info.sha, allow_patterns=patterns)
            return _local("teachers", config.source, Path(folder), sorted(Path(folder) / n for n in lists))
    except hub_errors() as error:
        raise PoolError(
            f"{config.source}: no such local file or folder, and no Hugging Face dataset within reach "
            f"({first_line(error)}); check the name and the network, or download it and give its folder"
        ) from error
    return Source(format="hub", label=config.source, dataset_id=config.source, revision=info.sha, split=config.split)


def hub_errors() -> tuple[type[Exception], ...]:
    """What reading from the hub may raise. The client's own error derives from that of its HTTP library."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    # RuntimeError: the dataset is a script, which is not run.
    return (*HfHubHTTPError.__bases__, ValueError, RuntimeError, DatasetsError)


def hub_rows(dataset_id: str, *, revision: str, split: str, config: str | None = None) -> Iterator[Any]:
    """The rows of a split of a hub dataset at one commit, streaming. Errors: `hub_errors()`."""
    import datasets

    named = {"name": config} if config else {}
    rows = datasets.load_dataset(dataset_id, **named, split=split, revision=revision, streaming=True)
    yield from rows.decode(False)  # a picture or a sound may be named by any path or address: none is opened


def source_identity(source: Source, memo_dir: Path | None) -> dict[str, Any]:
    """What makes the pool's content: hashes of the files, or the hub id with its commit; never a local path.

    Names inside a folder of teachers count, because they are the teachers' names.
    """
    if source.format == "hub":
        return {"dataset": source.dataset_id, "revision": source.revision, "split": source.split}
    try:
        hashes = [hash_file(file, memo_dir) for file in source.files]
    except FileNotFoundError as error:
        raise PoolError(f"{error.filename}: was removed while it was being read; put it back and run again") from error
    if source.format == "teachers":
        names = [source.place(file) for file in source.files]
        return {"format": "teachers", "content": fingerprint(dict(zip(names, hashes, strict=True)))}
    return {"format": source.format, "content": hashes[0] if len(hashes) == 1 else fingerprint(hashes)}


def read_source(source: Source, budget: Budget | None = None) -> Iterator[SourceRow]:
    """All rows of the source, streaming. Errors: `PoolError` when the source cannot be read to its end.

    `budget`: of files, how much of them is read before `EndOfLook`.
    """
    if source.format == "hub":
        yield from _read_hub(source)
    elif source.format == "arrow":
        yield from _read_arrow(source)
    else:
        before = 0
        for candidate_id, (file, size) in enumerate(zip(source.files, source.sizes, strict=True)):
            if source.format == "teachers":
                rows = _read_teacher(file, source, candidate_id, budget)
            else:
                rows = _read_file(file, source, budget)
            for row in rows:
                yield row._replace(position=before + row.position)
            before += size


def _read_file(file: Path, source: Source, budget: Budget | None) -> Iterator[SourceRow]:
    label = source.place(file)
    if is_parquet(file):
        return read_parquet(file, label, budget)
    if is_json_list(file, label):
        return read_json_list(file, label, budget)
    return read_jsonl(file, label, budget)


def is_json_list(file: Path, label: str) -> bool:
    """Whether a file is one JSON list, by its name and its beginning."""
    if not file.name.lower().endswith(_LISTS):
        return False
    with open_bytes(file, label) as (stream, _):
        return stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _read_teacher(file: Path, source: Source, candidate_id: int, budget: Budget | None) -> Iterator[SourceRow]:
    """Elements with the ids that their place gives them; ids of their own are kept as `source_…`."""
    ids = {"candidate_id": candidate_id, "teacher": file.parent.name}
    for number, row in enumerate(read_json_list(file, source.place(file), budget)):
        value = row.value
        if isinstance(value, dict):
            place_ids = {"problem_id": number, **ids}
            own = {f"source_{key}": value.pop(key) for key in place_ids if key in value}
            value = {**place_ids, **value, **own}
        yield row._replace(value=value)


def _read_arrow(source: Source) -> Iterator[SourceRow]:
    """Rows as they are stored: of a picture or a sound its bytes and its path, which nobody follows."""
    import datasets

    try:
        dataset: Any = datasets.load_from_disk(str(source.root)).with_format("arrow")
        for number, row in enumerate(dataset.iter(batch_size=1), start=1):
            yield SourceRow(f"{source.label}:{number}", row.to_pylist()[0], source.total * number // len(dataset))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise PoolError(
            f"{source.label}: the saved dataset is damaged ({first_line(error)}); save or copy it again"
        ) from error


def _read_hub(source: Source) -> Iterator[SourceRow]:
    assert source.dataset_id is not None and source.revision is not None
    place = f"{source.dataset_id}/{source.split}"
    try:
        rows = hub_rows(source.dataset_id, revision=source.revision, split=source.split)
        for number, value in enumerate(rows, start=1):
            yield SourceRow(f"{place}:{number}", value, number)
    except hub_errors() as error:
        raise PoolError(
            f"{place}: the dataset cannot be read ({first_line(error)}); check --split, or download it and give "
            "its folder"
        ) from error
