"""Scenes of Explore, shared between sessions under a key of everything that they depend on; a bounded number."""

from __future__ import annotations

import streamlit as st

from app.scored import ScoredPool, load_frame
from lark_engine.config import SelectConfig
from lark_engine.explore.quality import Check
from lark_engine.explore.view import ViewFilter
from lark_engine.figures.explore_scene import Scene as Scene


def load_scene(
    scored: ScoredPool, config: SelectConfig, asked: ViewFilter, only: Check | None, checks_version: str, metric: str,
    within: bool,
) -> Scene:  # fmt: skip
    """The scene of this view. Errors: `ConfigError` when the pool or the scores lack what an edit or energy needs."""
    # What is kept depends on the whole config; the texts and flags matter only through a chosen check.
    quality = "" if only is None else f"{only.name} {checks_version}"
    return _scene(
        scored.version, config.model_dump_json(), repr(asked), quality, metric, within, scored, config, asked, only
    )


@st.cache_resource(max_entries=16, show_spinner=False)
def _scene(
    version: str, config_key: str, asked_key: str, quality: str, metric: str, within: bool, _scored: ScoredPool,
    _config: SelectConfig, _asked: ViewFilter, _only: Check | None,
) -> Scene:  # fmt: skip
    return Scene(_scored, load_frame(_scored, _config), _config, _asked, _only, metric, within)
