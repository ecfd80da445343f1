"""Students and checkpoints from anybody: pickles are not loaded, code beside them is not run, templates do no harm."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile import payload, row, runs

from lark_engine.chat import ChatRenderer
from lark_engine.errors import LarkError, StoppedEarly, StoreError, StudentError
from lark_engine.evaluation.server_log import last_meaningful_line
from lark_engine.models import load_model, load_tokenizer, model_of_checkpoint, resolve_model, resolve_student
from lark_engine.records import Message
from lark_engine.store.workspace import Workspace
from lark_engine.training.checkpoints import newest_complete_checkpoint, require_own_files
from lark_engine.training.plan import plan_train, train_data
from lark_engine.training.train import train
from tests.cli.command_line import refuses, succeeds
from tests.training.conftest import tiny_train_config, write_train_file

ROOT = Path(__file__).resolve().parents[2]
FLAG = "--trust-remote-code"


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that is there only once somebody's code has run."""
    path = tmp_path / "marker"
    assert runs(path)
    return path


@pytest.fixture
def copy(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be changed."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "copy"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def loaded(folder: Path, workspace: Workspace, **options: Any) -> Any:
    model = resolve_model(str(folder), workspace)
    load_tokenizer(model, **options)
    return load_model(model, dtype="float32", device="cpu", **options)


def only_pickled(folder: Path, bad: object) -> None:
    (folder / "model.safetensors").unlink()
    _save(bad, folder / "pytorch_model.bin")


def beside_a_decoy(folder: Path, bad: object) -> None:
    (folder / "model.safetensors").rename(folder / "decoy.safetensors")
    _save(bad, folder / "pytorch_model.bin")


def named_by_an_index(folder: Path, bad: object) -> None:
    (folder / "model.safetensors").rename(folder / "decoy.safetensors")
    _save(bad, folder / "weights.bin")
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "weights.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def of_another_folder(folder: Path, bad: object) -> None:
    del bad
    (folder / "model.safetensors").rename(folder.parent / "theirs.safetensors")
    (folder / "decoy.safetensors").touch()
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "../theirs.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def called_safetensors(folder: Path, bad: object) -> None:
    _save(bad, folder / "model.safetensors")


def _save(bad: object, path: Path) -> None:
    import torch

    torch.save({"model.norm.weight": bad}, path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (only_pickled, "no *.safetensors weights; convert them (pickled weights are never loaded)"),
        (beside_a_decoy, "the model cannot be loaded: Error no file named model.safetensors found"),
        (named_by_an_index, "names the part 'weights.bin', which is no safetensors file beside it"),
        (of_another_folder, "names the part '../theirs.safetensors', which is no safetensors file beside it"),
        (called_safetensors, "the model cannot be loaded: Error while deserializing header"),
    ],
)
def test_pickled_weights_are_refused_wherever_they_hide(
    copy: Path, workspace: Workspace, marker: Path, make: Callable[[Path, object], None], said: str
) -> None:
    make(copy, payload(marker))
    with pytest.raises(StudentError) as error:
        loaded(copy, workspace)
    assert said in str(error.value)
    assert "weights_only" not in str(error.value)  # torch's advice of how to run it all the same
    assert not marker.exists()


@pytest.fixture
def adapter(tiny_model_dir: Path, tmp_path: Path) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "adapter"
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(base, lora).save_pretrained(folder)
    return folder


def test_an_adapter_with_pickled_weights_is_refused(adapter: Path, workspace: Workspace, marker: Path) -> None:
    loaded(adapter, workspace)
    (adapter / "adapter_model.safetensors").unlink()
    _save(payload(marker), adapter / "adapter_model.bin")
    with pytest.raises(StudentError, match=r"no adapter_model\.safetensors; save the adapter with it \(pickled"):
        loaded(adapter, workspace)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"base_model_name_or_path": None}, "has no base_model_name_or_path"),
        ({"base_model_name_or_path": ["a"]}, "has no base_model_name_or_path"),
        ({"peft_type": "EVIL"}, "cannot be loaded"),
        ({"r": "x"}, "cannot be loaded"),
        ({"megatron_config": {"a": 1}, "megatron_core": "marking"}, "cannot be loaded"),  # a module that peft imports
    ],
    ids=range(5),
)
def test_the_configuration_of_an_adapter_runs_nothing(
    adapter: Path,
    workspace: Workspace,
    marker: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, Any],
    said: str,
) -> None:
    (adapter / "marking.py").write_text(f"open({str(marker)!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(adapter))
    change(adapter / "adapter_config.json", **values)
    with pytest.raises(StudentError, match=said):
        loaded(adapter, workspace)
    assert not marker.exists()


@pytest.mark.parametrize(
    "values",
    [
        {"hidden_size": "x"}, {"hidden_size": -5}, {"max_position_embeddings": "1e400"}, {"dtype": "os.system"},
        {"rope_scaling": {"type": "evil", "factor": "x"}}, {"model_type": ["llama"]}, {"vocab_size": None},
        {"quantization_config": {"quant_method": "compressed-tensors"}}, {"architectures": "x"},
    ],
    ids=range(9),
)  # fmt: skip
def test_a_configuration_of_wrong_types_is_refused_or_means_nothing(
    copy: Path, workspace: Workspace, values: dict[str, Any]
) -> None:
    change(copy / "config.json", **values)
    try:
        loaded(copy, workspace)
    except LarkError as error:
        assert str(copy) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("content", ["[1]", "{", "7", "[" * 100_000, ""])
def test_a_configuration_that_is_none_is_refused(copy: Path, workspace: Workspace, content: str) -> None:
    from lark_engine.models import context_length

    (copy / "config.json").write_text(content)
    with pytest.raises(LarkError, match=r"config\.json"):
        context_length(resolve_student(str(copy), workspace))


def test_an_attention_of_the_hub_is_code_too(copy: Path, workspace: Workspace) -> None:
    change(copy / "config.json", _attn_implementation="somebody/kernel")
    with pytest.raises(StudentError, match=f"asks for 'somebody/kernel', code of the hub, .* give {FLAG}"):
        loaded(copy, workspace)


def test_a_pipe_among_the_files_of_a_model_holds_nobody_up(copy: Path, workspace: Workspace) -> None:
    os.mkfifo(copy / "generation.json")
    with pytest.raises(StoreError, match=r"generation\.json: is no regular file"):
        resolve_student(str(copy), workspace)


CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
Path({marker!r}).write_text("the code ran")
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
WANTED = "comes with Python code of its own, which is not run unless you say so"


@pytest.fixture
def wanting(copy: Path, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A student whose model and tokenizer are classes of a file beside them."""
    import transformers.dynamic_module_utils as dynamic

    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    (copy / "own.py").write_text(CODE.format(marker=str(marker)))
    auto = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    change(copy / "config.json", model_type="own", architectures=["OwnModel"], auto_map=auto)
    return copy


def wants_its_tokenizer_too(folder: Path) -> None:
    auto = {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]}
    change(folder / "tokenizer_config.json", tokenizer_class="OwnTokenizer", auto_map=auto)


def test_code_beside_a_model_or_a_tokenizer_runs_only_when_that_is_said(
    wanting: Path, workspace: Workspace, marker: Path
) -> None:
    with pytest.raises(StudentError, match=f"the model {WANTED}: read the .py files in it, .* give {FLAG}"):
        loaded(wanting, workspace)
    wants_its_tokenizer_too(wanting)
    with pytest.raises(StudentError, match=f"the tokenizer {WANTED}: read the .py files in it, .* give {FLAG}"):
        loaded(wanting, workspace)
    assert not marker.exists()
    assert type(loaded(wanting, workspace, trust_remote_code=True)).__name__ == "OwnModel"
    assert marker.read_text() == "the code ran"  # and it can run: the refusals above were no accident


def test_code_of_the_hub_that_a_configuration_names_is_not_fetched(copy: Path, workspace: Workspace) -> None:
    auto = {"AutoConfig": "evil/repo--own.OwnConfig", "AutoModelForCausalLM": "evil/repo--own.OwnModel"}
    change(copy / "config.json", model_type="own", auto_map=auto)
    with pytest.raises(StudentError, match=WANTED):
        loaded(copy, workspace)


@pytest.fixture
def pool_path(tmp_path: Path) -> Path:
    path = tmp_path / "pool.jsonl"
    path.write_text(
        "".join(json.dumps({**row(n // 2, "so " * n + "2"), "teacher": f"t{n % 2}"}) + "\n" for n in range(4))
    )
    return path


@pytest.fixture
def benchmark_path(tmp_path: Path) -> Path:
    path = tmp_path / "sums.json"
    path.write_text(json.dumps([{"prompt": "1 + 1?", "answer": "2"}]))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("own_tokenizer", [False, True])
@pytest.mark.parametrize("stage", ["score", "train full", "train lora", "preflight", "generate"])
def test_no_stage_runs_the_code_of_a_student_without_the_option(
    tmp_path: Path, wanting: Path, marker: Path, pool_path: Path, benchmark_path: Path, stage: str, own_tokenizer: bool
) -> None:
    if own_tokenizer:
        wants_its_tokenizer_too(wanting)
    train_path = write_train_file(tmp_path / "train.jsonl")
    training = ("--train-data", train_path, "--student", wanting, "--device", "cpu", "--max-steps", 1)
    command: tuple[object, ...] = {
        "score": ("score", "--input", pool_path, "--student", wanting, "--device", "cpu"),
        "train full": ("train", "full", *training),
        "train lora": ("train", "lora", *training),
        "preflight": ("train", "lora", *training, "--preflight"),
        "generate": (
            "generate", "--model-path", wanting, "--benchmark", benchmark_path, "--backend", "transformers",
            "--device", "cpu", "--n-samples", 1, "--max-new-tokens", 2,
        ),
    }[stage]  # fmt: skip
    sentence = refuses(*command, workspace=tmp_path / "w")
    assert WANTED in sentence and sentence.endswith(f"give {FLAG}")
    assert not marker.exists()


@pytest.mark.slow
def test_what_a_manifest_says_of_trust_is_not_taken_for_it(
    tmp_path: Path, wanting: Path, marker: Path, pool_path: Path
) -> None:
    """Scores and checkpoints may be anybody's; to look at tokens, or to merge, is asked for anew."""
    home = tmp_path / "w"
    succeeds("score", "--input", pool_path, "--student", wanting, "--device", "cpu", FLAG, workspace=home)
    train_path = write_train_file(tmp_path / "train.jsonl")
    training = ("--train-data", train_path, "--student", wanting, "--device", "cpu", "--max-steps", 1)
    succeeds("train", "lora", *training, FLAG, workspace=home)
    [scores], [checkpoint] = Workspace(home).list("scores"), Workspace(home).list("checkpoints")
    assert scores.manifest.config["trust_remote_code"] is checkpoint.manifest.config["trust_remote_code"] is True
    marker.unlink()
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        del sys.modules[name]  # as in another process
    tokens = ("score", "tokens", "--scores", scores.id, "--all", "--device", "cpu")
    merge = ("train", "merge", checkpoint.id)
    for command in (tokens, merge):
        assert WANTED in refuses(*command, workspace=home)
        assert not marker.exists()
    for command in (tokens, merge):
        succeeds(*command, FLAG, workspace=home)
    assert marker.exists()


def test_a_model_server_that_wants_the_code_says_the_option_of_ours(tmp_path: Path) -> None:
    (tmp_path / "server.log").write_text(
        "INFO 01-01 00:00:00 [api_server.py:1] starting\n"
        "pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
        "  Value error, The repository /m contains custom code which must be executed to correctly load the model.\n"
        "Please pass the argument `trust_remote_code=True` to allow custom code to be run. [type=value_error]\n"
    )
    said = last_meaningful_line(tmp_path / "server.log")
    assert WANTED in said and said.endswith(f"give {FLAG}")


ATTACKS = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch MARKER').read() }}",
    "{{ lipsum.__globals__['os'].system('touch MARKER') }}", "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__.os.system('touch MARKER') }}",
    "{{ raise_exception.__globals__['jinja2'] }}", "{{ strftime_now.__globals__ }}",
    "{{ ''|attr('__class__')|attr('__mro__') }}", "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ (messages|map(attribute='__class__')|list)[0].__mro__ }}", "{{ self.__init__.__globals__ }}",
    "{% include '/etc/passwd' %}", "{% import 'os' as os %}{{ os.system('touch MARKER') }}",
    "{% extends '/etc/passwd' %}", "{{ messages.append(1) }}", "{{ messages[0].update({'role': 'x'}) }}",
    "{% for n in range(10**9) %}{% endfor %}", "{{ 1 // 0 }}", "{{ raise_exception('no') }}", "{% for %}", "{{ x() }}",
)  # fmt: skip


@pytest.mark.parametrize("template", ATTACKS, ids=range(len(ATTACKS)))
def test_a_template_reaches_nothing_but_the_messages(
    tiny_model_dir: Path, tmp_path: Path, marker: Path, template: str
) -> None:
    from transformers import AutoTokenizer

    (tmp_path / "t.jinja").write_text(template.replace("MARKER", str(marker)))
    renderer = ChatRenderer(AutoTokenizer.from_pretrained(tiny_model_dir), chat_template=tmp_path / "t.jinja", name="s")
    messages = [Message(role="user", content="1 + 1?")]
    with pytest.raises(StudentError, match=r"^student s: its chat template (cannot render this|leaves out part of)"):
        renderer.tokens(messages, "2", max_length=100)
    assert messages == [{"role": "user", "content": "1 + 1?"}]
    assert not marker.exists()


@pytest.mark.slow
def test_a_template_that_does_not_end_ends_when_it_is_asked_to(
    tmp_path: Path, tiny_model_dir: Path, pool_path: Path
) -> None:
    loop = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
    (tmp_path / "endless.jinja").write_text(loop)
    words = [
        "score", "--input", str(pool_path), "--student", str(tiny_model_dir), "--device", "cpu", "--chat-template",
        str(tmp_path / "endless.jinja"), "--workspace", str(tmp_path / "w"),
    ]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "lark_engine.cli", *words], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("w/scores/*/*")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(1)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) != 0
    assert time.monotonic() - began < 15


def names_in(path: Path) -> set[str]:
    """All names that a module reads, and the modules that it imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


SOURCES = sorted(path for folder in ("lark_engine", "app", "pages") for path in (ROOT / folder).rglob("*.py"))


def test_templates_of_students_are_rendered_in_one_place_and_by_no_page() -> None:
    """By transformers, in a sandbox. The report renders files of ours, escaped, and no text as a template."""
    rendering = {
        str(path.relative_to(ROOT)): names
        for path in SOURCES
        if (names := {n for n in names_in(path) if "jinja" in n.lower() or n.endswith("apply_chat_template")})
    }
    ours = {"jinja2.Environment", "jinja2.FileSystemLoader", "jinja2.StrictUndefined"}
    assert rendering == {
        "lark_engine/chat.py": {"self.tokenizer.apply_chat_template"}, "lark_engine/sharing/report_html.py": ours,
    }  # fmt: skip
    report = (ROOT / "lark_engine" / "sharing" / "report_html.py").read_text()
    assert "autoescape=True" in report and "from_string" not in report
    assert len(SOURCES) > 200
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] != "lark_engine":
            assert not any("ChatRenderer" in name for name in names_in(path)), path


PICKLES = (
    "pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "torch.load",
    "pd.read_pickle",
    "pandas.read_pickle", "eval", "exec", "yaml.unsafe_load", "yaml.full_load", "yaml.UnsafeLoader", "yaml.Loader",
    "yaml.FullLoader", "allow_pickle", "jsonpickle",
)  # fmt: skip


def test_nothing_of_ours_loads_a_pickle_or_runs_a_text() -> None:
    """Also not from memo/: what is remembered is JSON and Parquet."""
    used = {}
    for path in SOURCES:
        names = names_in(path) - {"pickle.UnpicklingError"}  # an error's name
        if bad := {name for name in names if name in PICKLES or name.split(".")[0] in PICKLES}:
            used[str(path.relative_to(ROOT))] = bad
    assert used == {}
    calls = [
        node for path in SOURCES for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load", "yaml.load")
    ]  # fmt: skip
    said = {ast.unparse(call.func): {k.arg: ast.unparse(k.value) for k in call.keywords} for call in calls}
    assert said == {"np.load": {"allow_pickle": "False"}, "yaml.load": {"Loader": "_StrictLoader"}}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_the_state_of_a_run_is_read_as_numbers_only(
    tmp_path: Path, tiny_model_dir: Path, workspace: Workspace, marker: Path, name: str
) -> None:
    import torch

    path = write_train_file(tmp_path / "train.jsonl")
    config = tiny_train_config(tiny_model_dir, epochs=2, save_steps=1, stop_after_checkpoint=True)
    with pytest.raises(StoppedEarly):
        train(config, workspace, train_data(str(path), workspace))
    resume = workspace.folder(plan_train(config, workspace, train_data(str(path), workspace))[0]) / "resume"
    newest = newest_complete_checkpoint(resume)
    assert newest is not None and (newest / name).exists()
    torch.save({"state": payload(marker)}, newest / name)
    go_on = config.model_copy(update={"stop_after_checkpoint": False})
    with pytest.raises(StoreError, match=f"{newest}: its state holds more than numbers and is not loaded; remove"):
        train(go_on, workspace, train_data(str(path), workspace))
    assert not marker.exists()
    shutil.rmtree(newest)
    assert train(go_on, workspace, train_data(str(path), workspace)) is not None


@pytest.mark.parametrize("how", ["a link", "a linked folder", "written by everybody"])
def test_a_state_that_can_run_code_is_the_users_own_and_nobody_elses(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "checkpoint-2"
    (folder / "global_step2").mkdir(parents=True)
    state = folder / "global_step2" / "state.pt"
    state.touch()
    require_own_files(folder)
    (tmp_path / "elsewhere").mkdir()
    if how == "written by everybody":
        state.chmod(0o666)
    else:
        (folder / "more").symlink_to(tmp_path / "elsewhere" if how == "a linked folder" else state)
    said = "can be written by everybody" if how == "written by everybody" else "is a link"
    with pytest.raises(StoreError, match=f"{said}, and DeepSpeed's state can run code"):
        require_own_files(folder)


def test_a_checkpoint_of_a_workspace_needs_safetensors_too(
    tmp_path: Path, tiny_model_dir: Path, workspace: Workspace, adapter: Path, marker: Path
) -> None:
    from lark_engine.store.workspace import Draft, Plan

    base = resolve_student(str(tiny_model_dir), workspace)

    def make(draft: Draft) -> None:
        shutil.copytree(adapter, draft.path / "adapter")
        (draft.path / "adapter" / "adapter_model.safetensors").unlink()
        _save(payload(marker), draft.path / "adapter" / "adapter_model.bin")

    plan = Plan(
        kind="checkpoints", name="theirs", fingerprint="0123456789ab", config={"student": str(tiny_model_dir)},
        identity={"student": base.content},
    )  # fmt: skip
    with pytest.raises(StudentError, match=r"no adapter_model\.safetensors"):
        model_of_checkpoint(workspace.build(plan, make), workspace)
    assert not marker.exists()
