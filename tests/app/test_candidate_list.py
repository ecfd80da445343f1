"""What a click on the list of candidates says, taken from a browser that may say anything."""

from __future__ import annotations

from typing import Any

import pytest

from app.components import candidate_list
from app.components.candidate_list import Picked


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ({"shown": "3", "versus": None}, [Picked(3, None)]),
        ({"shown": "3", "versus": "-1"}, [Picked(3, -1)]),
        ({"shown": "3", "versus": "3"}, [Picked(3, 3)]),
        ({"shown": "3", "versus": "1; x"}, [Picked(3, None)]),
        ({"shown": "../3", "versus": "1"}, []),
        ({"shown": "9" * 11}, []),
        ({"shown": ["3"]}, []),
        ({}, []),
        (None, []),
        ("3", []),
    ],
)
def test_only_whole_choices_are_heard(said: Any, heard: list[Picked], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate_list.st, "session_state", {"list": {"picked": said}})
    found: list[Picked] = []
    candidate_list._deliver("list", found.append)
    assert found == heard
