"""Two hundred people look at a read-only server at once: all are served, and its memory stays where it is."""

from __future__ import annotations

import pytest
from attacked import Served

from benchmarks.raw_client import session
from benchmarks.viewers import memory_mb, wave
from lark_engine.serve import find_dashboard
from lark_engine.sharing.exposure import Exposure

pytestmark = pytest.mark.slow
MOST_MB_OF_A_VIEWER = 2.0


def test_two_hundred_viewers_at_once_are_served_and_what_they_leave_behind_does_not_add_up(read_only: Served) -> None:
    import psutil

    running = find_dashboard(read_only.workspace)
    assert running is not None
    server = psutil.Process(running.pid)
    with session(read_only.address) as first:
        first.open("tune", B=1)
    before = memory_mb(server)
    waves = [wave(read_only.address, server, 200, moves=1) for _ in range(2)]
    assert [seen.failures for seen in waves] == [[], []]
    assert [seen.num_pages for seen in waves] == [800, 800]
    assert waves[0].peak_mb - before < 200 * MOST_MB_OF_A_VIEWER
    assert waves[1].peak_mb < waves[0].peak_mb * 1.2


def test_more_than_the_server_was_started_for_have_to_wait(tmp_path_factory: pytest.TempPathFactory) -> None:
    from attacked import make_workspace
    from browser import dashboard  # type: ignore[import-not-found]
    from websockets.exceptions import InvalidStatus

    workspace, _, _ = make_workspace(tmp_path_factory.mktemp("few"))
    with dashboard(workspace, Exposure(most_viewers=2)) as address:
        with session(address) as one, session(address) as two:
            one.open("jobs")
            two.open("jobs")
            with pytest.raises(InvalidStatus), session(address):
                pass
        with session(address) as three:
            three.open("jobs")
            assert not three.says("This part of the page failed")
