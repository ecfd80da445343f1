"""Jobs of tests lease devices of their own folder, and none of their processes outlives its test."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lark_engine.jobs.folder import all_jobs
from tests.fake_server import FakeServer, fake_server
from tests.jobs.kit import processes_of

__all__ = ["FakeServer", "fake_server"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A workspace's folder; the jobs in it are ended with the test."""
    monkeypatch.setenv("LARK_LEASES", str(tmp_path / "leases"))
    folder = tmp_path / "workspace"
    yield folder
    for job in all_jobs(folder):
        for pid in processes_of(job):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
