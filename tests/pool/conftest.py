"""Fixtures that write small source files and import them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pool_sources import jsonl

from lark_engine.config import PoolConfig
from lark_engine.pool.dataset import PoolData
from lark_engine.pool.importer import import_pool
from lark_engine.store.workspace import Workspace

Importer = Callable[..., PoolData]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write("pool.jsonl", row, row, b"a raw line")` writes a source file."""

    def write_file(name: str, *rows: object, content: bytes | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jsonl(*rows) if content is None else content)
        return path

    return write_file


@pytest.fixture
def load(workspace: Workspace) -> Importer:
    """`load(path, skip_bad=True)` imports a source into the test's workspace and opens the pool."""

    def load_pool(source: Path | str, **options: object) -> PoolData:
        return PoolData(import_pool(PoolConfig(source=str(source), **options), workspace))

    return load_pool
