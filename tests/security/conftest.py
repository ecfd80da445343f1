"""Servers to attack, as `lark serve` starts them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
for folder in (str(ROOT), *(str(ROOT / "tests" / name) for name in ("app", "results", "security"))):
    if folder not in sys.path:
        sys.path.insert(0, folder)

from attacked import Served, make_workspace  # noqa: E402

from lark_engine.sharing.exposure import Exposure  # noqa: E402
from lark_engine.sharing.tokens import Guests  # noqa: E402


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    from browser import dashboard

    folder = tmp_path_factory.mktemp("read_only")
    workspace, selection, secret = make_workspace(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        how = Exposure(read_only=True, memo_dir=folder / "memo")
        with dashboard(workspace, how) as address:
            yield Served(address, workspace, selection, secret)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Guests]]:
    from browser import dashboard

    folder = tmp_path_factory.mktemp("guarded")
    workspace, selection, secret = make_workspace(folder)
    guests = Guests(workspace.root / "access", root=workspace.root)
    guests.prepare()
    how = Exposure(auth="token", access_dir=guests.folder)
    with dashboard(workspace, how) as address:
        yield Served(address, workspace, selection, secret), guests
