"""Fingerprints: what changes the output, and the content of the inputs; never a path or a file time.

A fingerprint can be computed before a stage runs, so "already done" is a look-up.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from lark_engine.errors import StoreError
from lark_engine.store.atomic import write_json
from lark_engine.store.shown import BUNDLE

FINGERPRINT_LENGTH = 12
_CHUNK_BYTES = 1 << 20


def fingerprint(value: Any) -> str:
    """12 hexadecimal digits of the SHA-256 of the canonical JSON of `value` (keys sorted, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_LENGTH]


def hash_file(path: Path, memo_dir: Path | None = None) -> str:
    """SHA-256 of a file's content.

    With `memo_dir` the hash of a large file is remembered under its identity (device, inode, size, change time), so
    that planning a run over a 14 GB student costs nothing the second time. The memo may be deleted at any time.
    """
    stat = path.stat()
    memo = None
    if memo_dir is not None and stat.st_size > 8 * _CHUNK_BYTES:
        identity = f"{stat.st_dev}-{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}"
        memo = memo_dir / "hashes" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.json"
        try:
            known = json.loads(memo.read_text())["sha256"]
            assert isinstance(known, str)
            return known
        except (OSError, ValueError, KeyError, TypeError, RecursionError, AssertionError):
            pass
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    if memo_dir is not None and memo is not None and _may_remember(memo_dir):
        write_json(memo, {"sha256": digest.hexdigest()})
    return digest.hexdigest()


def _may_remember(memo_dir: Path) -> bool:
    """Not in a workspace that is not ours to write, nor in an unpacked bundle; where no workspace is, none is begun."""
    root = memo_dir.parent
    return os.access(memo_dir if memo_dir.exists() else root, os.W_OK) and not (root / BUNDLE).exists()


_CONTENT_SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".txt", ".gguf", ".jsonl", ".py")
_NOT_CONTENT = ("manifest.json", "README.md", "trainer_state.json")


def hash_model_dir(folder: Path, memo_dir: Path | None = None) -> str:
    """Fingerprint of a model or adapter folder: the content of its config, tokenizer and weight files.

    Errors: `StoreError` when the folder does not exist or holds none of these.
    """
    if not folder.is_dir():
        raise StoreError(f"{folder}: no such model folder; give the folder of a Hugging Face model or a hub id")
    files = sorted(p for p in folder.iterdir() if p.suffix in _CONTENT_SUFFIXES and p.name not in _NOT_CONTENT)
    if not files:
        raise StoreError(f"{folder}: holds no model files (config.json, *.safetensors); is this the right folder?")
    for path in files:
        if not path.is_file():  # a pipe would be read for ever
            raise StoreError(f"{path}: is no regular file, as those of a model are; remove it, or copy the model again")
    return fingerprint({p.name: hash_file(p, memo_dir) for p in files})
