"""Students and checkpoints: what a name means, what its content is, and where and how precisely it runs.

Nothing here imports torch until a device or a dtype must be decided, so that planning stays fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lark_engine.config import Device, Dtype
from lark_engine.errors import DeviceError, StudentError, first_line
from lark_engine.store.atomic import make_dir, require_space
from lark_engine.store.fingerprint import hash_model_dir
from lark_engine.store.workspace import Artifact, InputRef, Workspace, read_json, slug

if TYPE_CHECKING:
    import torch

# Weights in safetensors only; code is fetched with the rest and runs only with trust_remote_code.
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.py"]
STUDENT_DIR = "model"
ADAPTER_DIR = "adapter"
BASE_MODEL = "base_model.json"  # beside an adapter: the name and content of the model that it was trained on


@dataclass(frozen=True, kw_only=True)
class ModelRef:
    """A model that can be loaded: a plain folder, or a LoRA adapter together with its base model's folder.

    `content` is the fingerprint of its files; of a checkpoint, the artifact's own, known before it is trained.
    `artifact` is set when the workspace made it.
    """

    name: str
    path: Path
    content: str
    base: ModelRef | None = None
    artifact: Artifact | None = None

    @property
    def is_adapter(self) -> bool:
        return self.base is not None

    @property
    def base_path(self) -> Path:
        """The folder with the full weights."""
        return self.base.path if self.base else self.path

    @property
    def origin(self) -> str:
        """What finds this model again from any folder: the workspace's id, or the absolute path."""
        return self.artifact.id if self.artifact else str(self.path)

    @property
    def inputs(self) -> dict[str, InputRef]:
        """Lineage entry for a manifest; empty for a model from outside the workspace."""
        return {"model": self.artifact.ref} if self.artifact else {}


class LocalStudent(NamedTuple):
    """A full model that lies on this machine: its name, its folder, and the workspace's artifact if it is one."""

    name: str
    path: Path
    artifact: Artifact | None = None

    @property
    def origin(self) -> str:
        """What finds it again from any folder, as scores keep it: the workspace's id, or the absolute path."""
        return self.artifact.id if self.artifact else str(self.path)


def resolve_student(name: str, workspace: Workspace) -> ModelRef:
    """A full model: a folder, a student of the workspace (name or id), or a Hugging Face hub id.

    Errors: `StudentError` or `StoreError` when there is no such model, or its folder lacks config, tokenizer or
    safetensors weights (pickled weights are never loaded).
    """
    found = find_student(name, workspace)
    if found is None:
        found = LocalStudent(slug(name), _hub_folder(name).absolute())
        _check_model_dir(found.path)
    content = hash_model_dir(found.path, workspace.memo_dir)
    return ModelRef(name=found.name, path=found.path, content=content, artifact=found.artifact)


def find_student(name: str, workspace: Workspace) -> LocalStudent | None:
    """The full model of this name on this machine; None for a name that only the hub can know.

    Reads no weights and fetches nothing. Errors: as `resolve_student`.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        inside = folder / STUDENT_DIR
        is_artifact = inside.is_dir() and not (folder / "config.json").exists()
        found = LocalStudent(
            slug(Path(name).name if Path(name).is_dir() else name), (inside if is_artifact else folder).absolute()
        )
    else:
        known = [a for a in workspace.list("students") if name in (a.id, a.manifest.name, a.manifest.fingerprint)]
        if not known:
            return None
        found = LocalStudent(known[0].manifest.name, (known[0].path / STUDENT_DIR).absolute(), known[0])
    _check_model_dir(found.path)
    return found


def resolve_model(name: str, workspace: Workspace) -> ModelRef:
    """A checkpoint of the workspace (by id or unique name, or a copy of one), a student, or a folder with a model.

    Errors: `StoreError` when several checkpoints have this name; those of `resolve_student`.
    """
    folder = Path(name).expanduser()
    for artifact in workspace.list("checkpoints"):
        if folder.is_dir() and _holds(artifact, folder, workspace):
            return model_of_checkpoint(artifact, workspace)
        if not folder.is_dir() and name in (artifact.id, artifact.fingerprint, artifact.name):
            return model_of_checkpoint(workspace.resolve("checkpoints", name), workspace)
    if folder.is_dir() and (folder / "adapter_config.json").is_file():
        _check_adapter_dir(folder)
        base = resolve_student(base_of_adapter(folder), workspace)
        expected = read_json(folder / BASE_MODEL)["content"] if (folder / BASE_MODEL).is_file() else base.content
        if base.content != expected:
            raise StudentError(
                f"{folder}: this adapter was trained on other weights than {base.path} holds now ({expected}, found "
                f"{base.content}); set base_model_name_or_path in its adapter_config.json to the right ones"
            )
        content = hash_model_dir(folder, workspace.memo_dir)
        return ModelRef(name=slug(folder.name), path=folder.absolute(), content=content, base=base)
    return resolve_student(name, workspace)


def model_of_checkpoint(artifact: Artifact, workspace: Workspace) -> ModelRef:
    """The model inside a checkpoint artifact. Errors: `StudentError` when its base model has changed since."""
    manifest = artifact.manifest
    if not (artifact.path / ADAPTER_DIR).is_dir():
        path = artifact.path / STUDENT_DIR
        return ModelRef(name=artifact.id, path=path, content=artifact.fingerprint, artifact=artifact)
    base = resolve_student(str(manifest.config["student"]), workspace)
    if base.content != manifest.identity.get("student"):
        raise StudentError(
            f"checkpoint {artifact.id} is an adapter for other weights than {base.path} holds now "
            f"({manifest.identity.get('student')}, found {base.content}); give back the student that it was trained on"
        )
    path = artifact.path / ADAPTER_DIR
    _check_adapter_dir(path)
    return ModelRef(name=artifact.id, path=path, content=artifact.fingerprint, base=base, artifact=artifact)


def _holds(checkpoint: Artifact, folder: Path, workspace: Workspace) -> bool:
    """Whether a folder is a checkpoint's own, or holds the same model, as `--output-dir` copies it."""
    if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        return folder.absolute() == checkpoint.path
    own = [path for name in (STUDENT_DIR, ADAPTER_DIR) if (path := checkpoint.path / name).is_dir()]
    content = hash_model_dir(folder, workspace.memo_dir)
    return any(hash_model_dir(path, workspace.memo_dir) == content for path in own)


def _hub_folder(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except HFValidationError:
        raise StudentError(f"no model folder, workspace student or hub id '{name}'; check the path") from None
    except Exception as error:  # the hub client raises many unrelated types for "not reachable"
        reason = first_line(error)
        raise StudentError(f"no model folder or workspace student '{name}', and the hub says: {reason}") from error


def _check_model_dir(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise StudentError(f"{folder}: no config.json; give the folder of a Hugging Face model")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")):
        raise StudentError(
            f"{folder}: no tokenizer files; copy tokenizer.json and tokenizer_config.json beside the model"
        )
    if not any(folder.glob("*.safetensors")):
        raise StudentError(f"{folder}: no *.safetensors weights; convert them (pickled weights are never loaded)")
    _check_index(folder / "model.safetensors.index.json")


def _check_index(path: Path) -> None:
    """An index may name any file in place of its parts: a pickled one, or one of another folder.

    Errors: `StudentError` for a part that is no safetensors file beside it.
    """
    if not path.exists():
        return
    parts = _object(path).get("weight_map")
    for name in set(map(str, parts.values())) if isinstance(parts, dict) else ():
        if not name.endswith(".safetensors") or Path(name).name != name:
            raise StudentError(
                f"{path}: names the part {name[:120]!r}, which is no safetensors file beside it; convert the weights "
                "(pickled ones are never loaded)"
            )


def _check_adapter_dir(folder: Path) -> None:
    """An adapter's weights are safetensors too: peft would take a pickled file where there are none."""
    if not (folder / "adapter_model.safetensors").is_file():
        raise StudentError(
            f"{folder}: no adapter_model.safetensors; save the adapter with it (pickled weights are never loaded)"
        )


def base_of_adapter(folder: Path) -> str:
    """What an adapter says it was trained on. Errors: `StudentError` where it does not say it."""
    name = _object(folder / "adapter_config.json").get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise StudentError(
            f"{folder / 'adapter_config.json'}: has no base_model_name_or_path; set it to the folder of the base model"
        )
    return name


def _object(path: Path) -> dict[str, Any]:
    """A configuration file of a model. Errors: `StudentError` when it is no JSON object, else as `read_json`."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise StudentError(f"{path}: no JSON object; copy the model again")
    return values


def cuda_is_there() -> bool:
    """Whether torch can use a CUDA device."""
    import torch

    return torch.cuda.is_available()


def resolve_device(device: Device) -> str:
    """`cpu` or `cuda`. Errors: `DeviceError` when CUDA is asked for and absent: never a silent fallback."""
    if device == "auto":
        return "cuda" if cuda_is_there() else "cpu"
    if device == "cuda" and not cuda_is_there():
        raise DeviceError("CUDA was asked for, but torch finds no CUDA device; use --device cpu, or fix the driver")
    return device


def resolve_dtype(dtype: Dtype, device: str) -> str:
    """The precision by name; `auto` is bfloat16 on CUDA and float32 on CPU. Decided before the fingerprint."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if device == "cuda" else "float32"


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a resolved name."""
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def load_tokenizer(model: ModelRef, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model (of its base, for an adapter). Errors: `StudentError` when it cannot be loaded."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model.base_path, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise _not_loaded(model.base_path, "tokenizer", error) from error


def load_model(model: ModelRef, *, dtype: str, device: str, trust_remote_code: bool = False) -> Any:
    """The causal language model in evaluation mode, adapter merged in memory if there is one.

    Errors: `StudentError` when it cannot be loaded; `DeviceError` when it does not fit the device.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    if not trust_remote_code:
        _refuse_kernels(model.base_path)
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            model.base_path, dtype=torch_dtype(dtype), use_safetensors=True, trust_remote_code=trust_remote_code
        )
        if model.is_adapter:
            from peft import PeftModel

            loaded = PeftModel.from_pretrained(loaded, model.path).merge_and_unload()
        return loaded.to(device).eval()
    except torch.OutOfMemoryError as error:
        raise DeviceError(f"{model.name} does not fit on {device}; use a smaller model or another device") from error
    except Exception as error:  # its configuration is anybody's: what a library makes of it may fail in any way
        raise _not_loaded(model.base_path, "model", error) from error


def _refuse_kernels(folder: Path) -> None:
    """A configuration may ask for an attention of the hub: code that is downloaded and run. Errors: `StudentError`."""
    path = folder / "config.json"
    config = _object(path) if path.is_file() else {}  # what loads the model says that it is not there
    for key in ("_attn_implementation", "attn_implementation", "_attn_implementation_internal"):
        if "/" in (asked := str(config.get(key))):
            raise StudentError(
                f"{path}: {key} asks for {asked[:120]!r}, code of the hub, which is not run unless "
                "you say so: remove the line, or if you trust it give --trust-remote-code"
            )


def _not_loaded(folder: Path, what: str, error: Exception) -> StudentError:
    """Why a library does not load something, and what to do where it wants to run the code beside it."""
    if "trust_remote_code" in str(error):
        return StudentError(
            f"{folder}: the {what} comes with Python code of its own, which is not run unless you say so: read the .py "
            "files in it, and if you trust them give --trust-remote-code"
        )
    if "weights_only" in str(error):  # torch's own words say how to run the code in it
        return StudentError(f"{folder}: the {what} holds pickled weights, which are never loaded; save safetensors")
    return StudentError(f"{folder}: the {what} cannot be loaded: {first_line(error)}")


def save_weights(
    model: Any, folder: Path, *, like: ModelRef, state: dict[str, Any] | None = None, trust_remote_code: bool = False
) -> None:
    """Save a whole model in the precision that `like` is stored in, with one copy of tied weights.

    `state`: the weights, where the model does not hold them itself. Errors: `StoreError` when the disk has no room.
    """
    from transformers import AutoConfig

    stored = AutoConfig.from_pretrained(like.base_path, trust_remote_code=trust_remote_code).dtype
    tied = set(model.all_tied_weights_keys)
    weights = {
        name: tensor.to(stored) if tensor.is_floating_point() else tensor
        for name, tensor in (state or model.state_dict()).items()
        if name not in tied
    }
    make_dir(folder)
    require_space(folder, sum(tensor.numel() * tensor.itemsize for tensor in weights.values()), "the model")
    model.config.dtype = stored
    model.config.use_cache = True
    model.save_pretrained(folder, state_dict=weights)


def context_length(model: ModelRef) -> int | None:
    """The longest sequence that the model's config states, in tokens; None where it states none."""
    return stated_length(model.base_path)


def stated_length(folder: Path) -> int | None:
    """The longest sequence that the config in a model's folder states, in tokens; None where it states none.

    Errors: `StudentError`, `StoreError` when the config is no JSON object.
    """
    limit = _object(folder / "config.json").get("max_position_embeddings")
    return limit if isinstance(limit, int) and limit > 0 else None


def model_type(model: ModelRef) -> str:
    """The architecture's name in the model's config."""
    return str(_object(model.base_path / "config.json").get("model_type", ""))


def free_device_memory() -> None:
    """Give memory of models that nobody holds any more back to the device, for the next stage or its server."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
