"""What the page Train is to train: selection, student, recipe and name in the address, and the form of the options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from app import address, widgets
from app.address import Codec, bound, one_of, words
from app.config_form import ConfigForm, form_params
from app.loaders import Snapshot
from app.shell import saved_config
from app.train_blocks import selection_facts
from lark_engine.config import TrainConfig
from lark_engine.errors import ConfigError, StoreError
from lark_engine.recipes import train_recipe, train_recipes
from lark_engine.recipes.batches import with_global_batch
from lark_engine.results.commands import OF_THE_PLACE, shipped_recipe
from lark_engine.serve import SOURCE_TREE
from lark_engine.store.atomic import user_path
from lark_engine.store.workspace import Artifact

DATA, STUDENT, RECIPE, NAME = "train_data", "train_student", "train_recipe", "train_name"
# A recipe's text that is typed and not used yet: it means nothing for another selection or recipe.
DRAFT = "train_draft"
ESSENTIAL = ("lr", "epochs", "global_batch", "max_length", "lora_rank")
_LORA = tuple(name for name in TrainConfig.model_fields if name.startswith("lora_"))
_PREFIX = "train"
_NAME = words(80)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What is to be trained on what. `recipe` as the command names it; `base`: its values, in our names."""

    selection: Artifact
    student: str
    recipe: str
    name: str
    base: Mapping[str, Any]

    @property
    def form(self) -> ConfigForm:
        """The form of the options, begun from the recipe."""
        method = str(self.base.get("method", "lora"))
        return ConfigForm(
            config=TrainConfig, prefix=_PREFIX, base=self.base, leave_out=_LORA if method == "full" else (),
            fixed={"method": method, "student": self.student, "recipe": self.name or self.base["recipe"]},
        )  # fmt: skip


def choose(snapshot: Snapshot) -> Chosen | None:
    """Draw the choices; None where the recipe cannot be read, which is explained."""
    with st.container(border=True, key="train_choices"):
        data, student, recipe, name = st.columns([2, 2, 1.3, 1.3], gap="medium")
        with data:
            selection = _selection(snapshot)
        with student:
            model = _student(snapshot, selection)
        with recipe:
            said_recipe = _recipe()
        with name:
            st.text_input(
                "Name", placeholder="as the recipe", help="Name of the checkpoint · `--name`", **bound(NAME, _NAME)
            )  # fmt: skip
        st.html(selection_facts(selection))
        said = saved_config(selection)
        scores = selection.manifest.inputs.get("scores")
        if said is not None and scores is not None:
            # All parameters of the selection anew: what this page's address leaves at its default must not stay.
            params = {address.SCORES: scores.id, **address.config_params(said)}
            st.page_link(
                str(address.PAGES_DIR / "tune.py"), label="Look at this selection", icon=":material/tune:",
                query_params=params,
            )  # fmt: skip
    try:
        asked = recipe_path(said_recipe)
        return Chosen(
            selection=selection, student=model, recipe=asked, name=address.read(NAME, _NAME), base=recipe_base(asked)
        )
    except (ConfigError, StoreError) as error:
        st.html(widgets.problem("The recipe cannot be used.", str(error)))
        return None


def recipe_base(recipe: str) -> dict[str, Any]:
    """The values of a recipe, checked. Errors: `ConfigError`, `StoreError` without the file."""
    values = with_global_batch(train_recipe(recipe))
    TrainConfig.parse({"student": "student", **values}, recipe)
    return values


def recipe_path(said: str) -> str:
    """A shipped recipe's name as it is; a YAML file by its whole path, as a job finds it. Errors: `ConfigError`."""
    if Path(said).suffix not in (".yaml", ".yml"):
        return said
    path = user_path(said)
    return str(path if path.is_absolute() else SOURCE_TREE / path)


def params_of_run(config: Mapping[str, Any], selection: str | None = None) -> dict[str, list[str] | str | None]:
    """The parameters of the address that fill the form with a run's options, from its manifest's config.

    `selection`: the id of what it was trained on. What the run's place decided (devices) is left to this machine.
    Parameters that must not stay are None.
    """
    method = str(config.get("method", "lora"))
    name = str(config.get("recipe", ""))
    recipe = name if name in train_recipes() and train_recipe(name).get("method") == method else shipped_recipe(method)
    base = with_global_batch(train_recipe(recipe))
    form = ConfigForm(
        config=TrainConfig, prefix=_PREFIX, base=base, leave_out=_LORA if method == "full" else (),
        fixed={"method": method, "student": "", "recipe": name},
    )  # fmt: skip
    said = {name: value for name, value in config.items() if name in form.fields and name not in OF_THE_PLACE}
    return {
        **form_params(form, said), DATA: selection, STUDENT: str(config["student"]) if "student" in config else None,
        RECIPE: None if recipe == "lora" else recipe, NAME: None if name == recipe else name or None, DRAFT: None,
    }  # fmt: skip


def student_of_scores(snapshot: Snapshot, selection: Artifact) -> str:
    """The student that the selection's candidates were scored under; empty when the scores are gone."""
    ref = selection.manifest.inputs.get("scores")
    scores = snapshot.find(ref) if ref else None
    return str(scores.manifest.config.get("student") or "") if scores is not None else ""


def _selection(snapshot: Snapshot) -> Artifact:
    known = {artifact.id: artifact for artifact in snapshot.artifacts["selections"]}
    codec = one_of(list(known), next(iter(known)))
    asked = st.query_params.get(DATA)
    if asked is not None and asked not in known:
        st.toast("The address names a selection that is not here; showing the newest.")
    # Named in the address at once, so that it stays right when a newer one comes.
    st.query_params[DATA] = address.read(DATA, codec)
    st.selectbox(
        "Train on", list(known), help="A saved selection · `--train-data`", **bound(DATA, codec, clears=(DRAFT,))
    )
    return known[address.read(DATA, codec)]


def _student(snapshot: Snapshot, selection: Artifact) -> str:
    own = student_of_scores(snapshot, selection)
    known = [name for name in (own, *(artifact.id for artifact in snapshot.artifacts["students"])) if name]
    known += [str(scores.manifest.config.get("student") or "") for scores in snapshot.artifacts["scores"]]
    codec = _text(known[0] if known else "")
    model = str(address.read(STUDENT, codec))
    if not own:
        address.name_at_once(**{STUDENT: model})
    options = list(dict.fromkeys(name for name in (*known, model) if name))
    st.selectbox(
        "Student", options, accept_new_options=True, placeholder="folder or Hugging Face id",
        help="The model to train: by default the one that the candidates were scored under; a folder, a student of the "
        "workspace or a Hugging Face id may be typed · `--student`",
        **bound(STUDENT, codec),
    )  # fmt: skip
    if own and model != own:
        st.caption("Not the student of the scores: ĝ says what another model learns from.")
    return model


def _recipe() -> str:
    codec = _text("lora")
    said = str(address.read(RECIPE, codec))
    options = list(dict.fromkeys(("lora", *train_recipes(), said)))
    st.selectbox(
        "Recipe", options, accept_new_options=True,
        help="Where the options begin, and full or LoRA; the path of a YAML file may be typed · `--recipe`",
        **bound(RECIPE, codec, clears=(DRAFT,)),
    )  # fmt: skip
    return said


def _text(default: str) -> Codec:
    return Codec(
        read=lambda said: said[-1][:1000].strip() or None,
        write=lambda value: [] if value in (None, "", default) else [str(value)], default=default,
    )  # fmt: skip
