"""What the first visitor would wait for, done when the server starts: the pages' libraries, and the newest scores."""

from __future__ import annotations

import importlib
import logging

from app.loaders import load_snapshot
from app.scored import load_frame, load_scored
from app.session import current_workspace, scored_pairs
from lark_engine.config import SelectConfig
from lark_engine.errors import LarkError

log = logging.getLogger(__name__)
_MODULES = (
    "app.shell", "app.tune_figures", "app.tune_actions", "app.explore_scene", "lark_engine.figures.explore_cards",
    "app.trajectory_view",
)  # fmt: skip


def read_ahead() -> None:
    """Fill the caches that all sessions share. What cannot be read is left to the page, which says why."""
    pair = next(iter(scored_pairs(load_snapshot(current_workspace())).values()), None)
    if pair is not None:
        try:
            load_frame(load_scored(*pair), SelectConfig())
        except LarkError as error:
            log.info("nothing read ahead: %s", error)
    for name in _MODULES:
        importlib.import_module(name)
