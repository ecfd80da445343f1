"""The controls of the page Tune: rule, energy and limits, presets, and the sliders that act while they are dragged."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import streamlit as st

from app import address
from app.address import bound, number, one_of
from app.boundary import reported
from app.components.live_slider import live_slider
from app.scored import ScoredPool, load_frame
from lark_engine.config import SelectConfig
from lark_engine.config.selection import Mode, Rule
from lark_engine.recipes import train_recipes
from lark_engine.scoring.criteria import energy_names
from lark_engine.training.cost import PEAK_FLOPS

MODES: dict[str, str] = {"budget": "Paper rule", "sharpness": "Budget and sharpness", "temperature": "Temperature"}
RULES: dict[str, str] = {
    "chi2": "χ² (LARK)", "top_b": "uniform over the top B", "softmax": "softmax over the top B",
    "best_teacher": "best teacher alone", "all": "all candidates",
}  # fmt: skip
PRESETS: dict[str, dict[str, str | None]] = {
    "LARK (χ² on ĝ)": {},
    "Uniform top B": {"rule": "top_b"},
    "RSR": {"rule": "top_b", "energy": "-rsr"},
    "Naturalness": {"rule": "top_b", "energy": "-nll"},
    "Shortest": {"rule": "top_b", "energy": "-num_response_tokens"},
    "Random": {"rule": "top_b", "energy": "random"},
    "Best teacher": {"rule": "best_teacher", "max_teacher_share": None},
    "Whole pool": {"rule": "all", "B": None},
}
MEASURED = "measured here"
BILLIONS = number(0.001, 10_000.0, None)
SHARPNESS_STOPS = tuple(float(f"{stop:.3g}") for stop in np.geomspace(0.05, 20.0, 53))
_NO_STRENGTH: dict[str, None] = dict.fromkeys(("mode", "sharpness", "tau", "max_budget"))


def rule_controls(scored: ScoredPool, config: SelectConfig) -> None:
    """How energies become weights; every choice that makes another one meaningless takes it out of the address."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="tune_rule", width="content"):
        st.session_state["mode"] = config.mode
        st.segmented_control(
            "Mode", get_args(Mode), required=True, format_func=MODES.__getitem__, key="mode",
            label_visibility="collapsed", disabled=config.rule != "chi2", on_change=_change_mode, args=(scored, config),
        )  # fmt: skip
        with st.popover(f"Rule: {RULES[config.rule]}", icon=":material/function:"):
            _rule_form(scored, config)
        limits = sum((config.max_teacher_share is not None, config.max_train_tokens is not None))
        with st.popover(f"Limits · {limits}" if limits else "Limits", icon=":material/vertical_align_top:"):
            _limits_form(config)
        with st.popover("Cost basis", icon=":material/payments:", help="What the cost card assumes"):
            _cost_form()


def preset_controls(config: SelectConfig) -> None:
    """One click to a rule that people compare with: rule, energy and strength change, B and the pool edits stay."""
    st.session_state["preset"] = _preset_of(config)
    st.pills("Presets", list(PRESETS), key="preset", label_visibility="collapsed", on_change=_take_preset)


def _preset_of(config: SelectConfig) -> str | None:
    is_plain = config.mode == "budget" and config.rule != "softmax"
    for name, params in PRESETS.items():
        if is_plain and (config.rule, config.energy) == (params.get("rule", "chi2"), params.get("energy", "g_hat")):
            return name
    return None


def _take_preset() -> None:
    name = st.session_state["preset"]
    if name is not None:  # a click on the one that holds already takes it off: nothing changes
        address.put(**{"rule": None, "energy": None, "seed": None, **_NO_STRENGTH, **PRESETS[name]})


def _rule_form(scored: ScoredPool, config: SelectConfig) -> None:
    st.session_state["rule"] = config.rule
    st.selectbox(
        "Rule", get_args(Rule), format_func=RULES.__getitem__, key="rule", on_change=_change_rule, args=(scored, config)
    )
    names = list(energy_names())
    st.selectbox(
        "Energy", names, **bound("energy", one_of(names, "g_hat"), clears=("seed",)),
        help="What candidates are ranked by; a minus ranks low values first",
        disabled=config.rule == "all" or config.tau is not None,
    )  # fmt: skip
    if config.energy == "random":
        st.number_input("Seed", min_value=0, max_value=10**6, **bound("seed", number(0, 10**6, 0, integer=True)))


def _limits_form(config: SelectConfig) -> None:
    st.caption("Limits hold over the whole selection; they change nothing where they hold already.")
    st.number_input(
        "Largest share of one teacher", min_value=0.01, max_value=1.0, step=0.05, placeholder="none",
        disabled=config.rule == "best_teacher", **bound("max_teacher_share", number(0.01, 1.0, None)),
    )  # fmt: skip
    st.number_input(
        "Most training tokens", min_value=1, max_value=10**13, step=100_000, placeholder="none",
        **bound("max_train_tokens", number(1, 10**13, None, integer=True)),
    )  # fmt: skip
    if config.rule == "chi2" and config.mode == "temperature":
        st.number_input(
            "Most kept of a problem", min_value=1, max_value=10**6, placeholder="none",
            **bound("max_budget", number(1, 10**6, None, integer=True)),
        )  # fmt: skip


def _cost_form() -> None:
    recipes = train_recipes()
    default = "lora" if "lora" in recipes else recipes[0]
    st.selectbox("Recipe", recipes, **bound("recipe", one_of(recipes, default)))
    devices = [MEASURED, *PEAK_FLOPS]
    st.selectbox("Speed", devices, **bound("device", one_of(devices, MEASURED)))
    st.number_input(
        "Parameters of the student, billions", min_value=0.001, max_value=10_000.0, step=0.5,
        placeholder="from its files",
        help="Only needed when the student's files are not on this machine", **bound("billions", BILLIONS),
    )  # fmt: skip
    st.number_input("Devices", min_value=1, max_value=1024, **bound("devices", number(1, 1024, 1, integer=True)))


def sliders(scored: ScoredPool, config: SelectConfig) -> SelectConfig:
    """The sliders that the mode has; returns the selection with their values, those under the pointer too."""
    frame = load_frame(scored, config)
    changes: dict[str, object] = {}
    has_strength = config.tau is not None or (config.rule == "chi2" and config.mode == "sharpness")
    columns = st.columns(2, gap="large") if config.has_budget and has_strength else [st.container()]
    if config.has_budget:
        most = max(frame.ranked.num_columns, 1)
        with columns[0]:
            changes["budget"] = int(live_slider(
                "Budget B · trajectories kept of a problem", range(1, most + 1), param="B",
                value=min(config.budget, most), written=lambda value: f"{value:.0f}", default=SelectConfig().budget,
            ))  # fmt: skip
    if config.rule == "chi2" and config.mode == "sharpness":
        with columns[-1]:
            changes["sharpness"] = live_slider(
                "χ² sharpness s = τ / τ_B · below 1 sharper, above 1 flatter", SHARPNESS_STOPS, param="sharpness",
                value=config.sharpness, written=lambda value: f"{value:.2f}", default=1.0,
            )  # fmt: skip
    if config.tau is not None:
        unit = frame.median_tau() if config.rule == "chi2" else softmax_unit(scored, config)
        with columns[-1]:
            changes["tau"] = live_slider(
                "χ² temperature τ · in units of the median τ₃" if config.rule == "chi2" else "τ of the softmax",
                tau_stops(unit), param="tau", value=config.tau, written=_in_units(unit),
            )  # fmt: skip
    given = {name: getattr(config, name) for name in config.model_fields_set}
    return SelectConfig.model_validate({**given, **changes})


def tau_stops(unit: float) -> list[float]:
    """Places of the τ slider: from a fiftieth to fifty times the pool's unit."""
    return [float(f"{stop:.4g}") for stop in np.geomspace(0.02, 50.0, 61) * (unit or 1e-3)]


def softmax_unit(scored: ScoredPool, config: SelectConfig) -> float:
    """A temperature at which a softmax tells the best from the average: the median distance between them."""
    frame = load_frame(scored, config)
    apart_N = (frame.ranked.best_N - frame.mean_energy_N)[frame.ranked.num_valid_N > 0]
    return float(np.median(apart_N)) if len(apart_N) else 1.0


def _in_units(unit: float) -> Callable[[float], str]:
    return lambda value: f"{value / unit:.3g} · τ = {value:.3g}" if unit > 0 else f"τ = {value:.3g}"


@reported
def _change_mode(scored: ScoredPool, config: SelectConfig) -> None:
    mode = st.session_state["mode"]
    if mode == "temperature":
        frame = load_frame(scored, config)
        tau = frame.median_tau(config.budget) or frame.median_tau() or 1e-3
        address.put(mode=mode, tau=f"{tau:.4g}", B=None, sharpness=None)
    else:
        address.put(mode=None if mode == "budget" else mode, tau=None, sharpness=None, max_budget=None)


@reported
def _change_rule(scored: ScoredPool, config: SelectConfig) -> None:
    rule = st.session_state["rule"]
    params: dict[str, object] = {"rule": None if rule == "chi2" else rule, **_NO_STRENGTH}
    if rule == "softmax":
        params["tau"] = f"{softmax_unit(scored, config):.4g}"
    if rule == "all":
        params["B"] = None
    if rule == "best_teacher":
        params["max_teacher_share"] = None
    address.put(**params)
