from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app import formats
from app.overview import FIRST_STEPS, next_step, stage_cards
from app.results import metrics_of

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (42.4, "42 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_read_as_people_say_them(seconds: float, expected: str) -> None:
    assert formats.duration(seconds) == expected


@pytest.mark.parametrize(
    ("created_at", "expected"),
    [
        ("2026-03-02T11:59:30+00:00", "just now"),
        ("2026-03-02T11:55:00.000+00:00", "5 min ago"),
        ("2026-03-02T09:00:00+00:00", "3 h ago"),
        ("2026-03-01T11:00:00+00:00", "1 day ago"),
        ("2026-01-01T00:00:00", "2026-01-01"),
        ("yesterday", ""),
    ],
)
def test_ages_count_up_to_days_and_then_give_the_date(created_at: str, expected: str) -> None:
    assert formats.age(created_at, NOW) == expected


def test_unknown_numbers_are_a_dash_not_a_zero() -> None:
    assert formats.percent(None) == "–"
    assert formats.percent(float("nan")) == "–"
    assert formats.percent(0.0) == "0.0%"
    assert formats.interval(None, None) == ""


def test_sizes_and_progress_carry_their_units() -> None:
    assert formats.size(74_000_000_000) == "74.0 GB"
    assert formats.size(512) == "512 B"
    assert formats.progress(10, 27, "step") == "10 of 27 steps"
    assert formats.progress(1_500_000, 3_000_000, "B") == "1.5 MB of 3.0 MB"


def test_metrics_come_in_the_order_of_use() -> None:
    import pandas as pd

    table = pd.DataFrame({"metric": ["maj@16", "pass@16", "pass@2", "avg@16", "pass@2"]})
    assert metrics_of(table) == ["avg@16", "pass@2", "pass@16", "maj@16"]


def test_each_missing_stage_has_its_command(workspace) -> None:
    from fake_workspace import add

    from app.loaders import load_snapshot

    steps = [next_step(load_snapshot(workspace), []).command]
    pool = add(workspace, "pools", "p", "111111111111")
    steps.append(next_step(load_snapshot(workspace), []).command)
    scores = add(workspace, "scores", "p@s", "222222222222", inputs={"pool": pool.ref})
    steps.append(next_step(load_snapshot(workspace), []).command)
    selection = add(workspace, "selections", "chi2", "333333333333", inputs={"scores": scores.ref})
    steps.append(next_step(load_snapshot(workspace), []).command)
    add(workspace, "checkpoints", "lora", "444444444444", inputs={"selection": selection.ref})
    steps.append(next_step(load_snapshot(workspace), []).command)
    assert steps[0] == FIRST_STEPS[1].command
    assert [step.split()[1] for step in steps[1:]] == ["score", "select", "train", "generate"]
    cards = stage_cards(load_snapshot(workspace), [], NOW)
    assert [card.state for card in cards] == ["ready", "ready", "ready", "ready", "none"]
