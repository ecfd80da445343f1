"""Opening a bundle that somebody else made: every name, size and checksum is checked, and nothing of it is ever run.

<cache>/<sha256 of the zip>/     the workspace, its files read-only; complete when it has this name
<cache>/.<…>.unpacking/          while it is unpacked; what a kill left is removed by the next one
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from lark_engine.errors import StoreError
from lark_engine.printing import one_line
from lark_engine.sharing.bundle_format import (
    MOST_RECORD_BYTES,
    SCHEMA_VERSION,
    BundleRecord,
    is_known,
    read_record,
)
from lark_engine.sharing.zip_entries import Entry, Limits, content_of, read_entries
from lark_engine.store.atomic import disk_errors, fsync_dir, make_dir, open_regular, require_space
from lark_engine.store.lock import lock
from lark_engine.store.shown import BUNDLE
from lark_engine.store.workspace import Workspace

log = logging.getLogger(__name__)

MARKER = ".unpacked.json"
_UNPACKING = ".unpacking"
_NAME_DIGITS = 32
_CHUNK = 1 << 20
DEFAULT_LIMITS = Limits()


def open_bundle(zip_path: Path, cache_dir: Path, limits: Limits = DEFAULT_LIMITS) -> Workspace:
    """The workspace in a bundle: unpacked below `cache_dir` the first time, found there from then on.

    Its files are read-only and its content was compared with the checksums. Errors: `StoreError`, one sentence that
    says what is wrong with the file and what to do; nothing of it is left then.
    """
    place = zip_path.expanduser().absolute()
    try:
        file = open_regular(place, follow=True)
    except OSError as error:
        raise StoreError(f"{place}: cannot be read ({error.strerror}); give the zip that lark bundle made") from error
    with file, disk_errors(cache_dir):
        make_dir(cache_dir)
        folder = cache_dir / _sha256(file)[:_NAME_DIGITS]
        with lock(folder.with_name(f".{folder.name}.lock")):
            if _is_whole(folder):
                log.info("%s was unpacked before, to %s", place, folder)
            else:
                _unpack(file, place, folder, limits)
    return Workspace(folder)


def peek(zip_path: Path) -> BundleRecord | None:
    """What a zip says of itself without unpacking it; None for one that is no bundle that could be opened."""
    with contextlib.suppress(OSError, StoreError), open_regular(zip_path, follow=True) as file:
        entries = {entry.name: entry for entry in read_entries(file, zip_path, DEFAULT_LIMITS)}
        return _record(file, zip_path, entries)
    return None


def _unpack(file: IO[bytes], place: Path, folder: Path, limits: Limits) -> None:
    """Unpack beside the folder, and give it its name when everything in it is right."""
    partial = folder.with_name(f".{folder.name}{_UNPACKING}")
    for left in (folder, partial):  # by a kill, or changed since
        _remove(left)
    entries = {entry.name: entry for entry in read_entries(file, place, limits)}
    record = _record(file, place, entries)
    _check_listed(place, entries, record)
    total = sum(entry.size for entry in entries.values())
    require_space(folder.parent, total, "unpacking this bundle")
    log.info("unpacking %s: %d files, %.1f MB", place, len(entries), total / 1e6)
    partial.mkdir(mode=0o700)
    try:
        for entry in entries.values():
            listed = record.files.get(entry.name)
            digest = _extract(file, entry, partial / entry.name, place)
            if listed is not None and digest != listed.sha256:
                raise _refused(place, f"'{entry.name}' is not what its checksum says: it was changed or damaged")
        marker = partial / MARKER
        marker.write_text(json.dumps({"num_files": len(entries), "num_bytes": total}))
        for path in sorted(partial.rglob("*")):
            if path.is_dir():
                fsync_dir(path)
            else:
                path.chmod(0o444)
        fsync_dir(partial)
        partial.rename(folder)
        fsync_dir(folder.parent)
    except BaseException:
        _remove(partial)
        raise


def _record(file: IO[bytes], place: Path, entries: dict[str, Entry]) -> BundleRecord:
    """What the bundle says of itself. Errors: `StoreError` when it does not, or is of a version that is not known."""
    entry = entries.get(BUNDLE)
    if entry is None or entry.size > MOST_RECORD_BYTES:
        raise _refused(place, f"it has no {BUNDLE}, so it is no bundle")
    content = b"".join(content_of(file, entry, place))
    try:
        said = json.loads(content)
        version = said.get("schema_version") if isinstance(said, dict) else None
    except (ValueError, RecursionError) as error:
        raise _refused(place, f"its {BUNDLE} is damaged") from error
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise StoreError(
            f"{place}: was made by a newer LARK Studio (format {version}, this is {SCHEMA_VERSION}); update this one"
        )
    if version != SCHEMA_VERSION:
        raise _refused(place, f"its {BUNDLE} is of no known format")
    try:
        return BundleRecord.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = one_line(".".join(str(part) for part in first["loc"]), 80)
        raise _refused(place, f"its {BUNDLE} is damaged ({where}: {first['msg']})") from error


def _check_listed(place: Path, entries: dict[str, Entry], record: BundleRecord) -> None:
    """Exactly what is listed, in the places where a bundle has files. Errors: `StoreError`."""
    found, listed = entries.keys() - {BUNDLE}, record.files.keys()
    if strangers := sorted(found - listed):
        raise _refused(place, f"'{one_line(strangers[0], 80)}' is in it and not in its {BUNDLE}")
    if missing := sorted(listed - found):
        raise _refused(place, f"'{one_line(missing[0], 80)}' is missing from it")
    if unknown := sorted(name for name in found if not is_known(name)):
        raise _refused(place, f"'{one_line(unknown[0], 80)}' is no file that a bundle may hold")
    for name, entry in entries.items():
        if name != BUNDLE and entry.size != record.files[name].size:
            raise _refused(place, f"'{name}' has {entry.size:,} bytes, and its {BUNDLE} says another number")


def _extract(file: IO[bytes], entry: Entry, target: Path, place: Path) -> str:
    """Write one file; returns the SHA-256 of what was written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        for part in content_of(file, entry, place):
            digest.update(part)
            output.write(part)
        output.flush()
        os.fsync(output.fileno())
    return digest.hexdigest()


def _is_whole(folder: Path) -> bool:
    """Whether a bundle was unpacked here, and every file has the size that it had then."""
    if not (folder / MARKER).is_file():
        return False
    try:
        record = read_record(folder)
    except StoreError:
        return False
    if record is None:
        return False
    sizes = {name: entry.size for name, entry in record.files.items()}
    with contextlib.suppress(OSError):
        if all((folder / name).stat().st_size == size for name, size in sizes.items()):
            return True
    log.warning("%s: changed since it was unpacked; it is unpacked again", folder)
    return False


def _remove(folder: Path) -> None:
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.is_dir():
        shutil.rmtree(folder)


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while part := file.read(_CHUNK):
        digest.update(part)
    return digest.hexdigest()


def _refused(place: Path, why: str) -> StoreError:
    return StoreError(f"{place}: nothing of it is opened: {why}; ask who made it for a bundle of lark bundle")
