"""Sampling of answers to benchmark problems: one artifact for each model and benchmark, resumable per sample."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lark_engine.chat import read_template
from lark_engine.config import GenerateConfig
from lark_engine.errors import ConfigError, ServerError
from lark_engine.evaluation.backends import Backend, OpenAIBackend, Request, Sampling, sample_seed
from lark_engine.evaluation.benchmarks import Benchmark, load_benchmark
from lark_engine.evaluation.serving import (
    BASE_NAME,
    ServerOptions,
    VllmServer,
    check_device,
    require_vllm,
    vllm_device,
)
from lark_engine.models import ModelRef, resolve_device, resolve_dtype
from lark_engine.records import Message
from lark_engine.store.atomic import write_text
from lark_engine.store.events import EventLog, Progress
from lark_engine.store.fingerprint import fingerprint
from lark_engine.store.rows import RowLog, read_rows
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace, slug

log = logging.getLogger(__name__)

GENERATIONS = "generations.jsonl"
PROBLEMS = "problems.jsonl"
KEY = ("problem_id", "sample_index")


def plan_generation(config: GenerateConfig, workspace: Workspace, model: ModelRef, benchmark: Benchmark) -> Plan:
    """What sampling this benchmark from this model would make; nothing is started or loaded."""
    prompt = effective_system_prompt(config, benchmark)
    # The benchmark's content says which problems there are, and the resolved prompt what they are asked with.
    chosen = {k: v for k, v in config.identity().items() if k not in ("limit", "system_prompt")}
    resolved = {
        **chosen,
        "dtype": resolved_dtype(config),
        "system_prompt": prompt,
        "chat_template": read_template(config.chat_template),
    }
    return Plan(
        kind="evals",
        name=benchmark.name,
        fingerprint=fingerprint({"config": resolved, "model": model.content, "benchmark": benchmark.content}),
        config=resolved,
        inputs=model.inputs,
        identity={
            "model": {"name": model.name, "content": model.content, "is_adapter": model.is_adapter},
            "benchmark": {
                "name": benchmark.name, "content": benchmark.content, "answer_type": benchmark.answer_type,
                "system_prompt": prompt,
            },
        },
        seed=config.seed,
        parent=workspace.root / "evals" / slug(model.name),
    )  # fmt: skip


def generate(
    config: GenerateConfig, workspace: Workspace, models: Sequence[ModelRef], *, api_key: str | None = None
) -> list[Artifact]:
    """Sample every benchmark of the config from every model; artifacts in that order, finished ones as they are.

    One server is started for each base model, and only when a sample of it is missing; it serves the base and all its
    adapters. With backend `endpoint`, `models` may be empty: then the server's model is what is evaluated; `api_key`
    is the endpoint's. After an error, a kill or Ctrl-C the same call makes only what is missing.
    Errors: `PoolError` for a bad benchmark, `ServerError`, `StudentError`, `DeviceError`.
    """
    benchmarks = [load_benchmark(name, limit=config.limit) for name in config.benchmark]
    if config.backend == "endpoint":
        models = [endpoint_model(config, models, api_key)]
    elif config.backend == "vllm":
        check_device(config.device)
    plans = [(m, b, plan_generation(config, workspace, m, b)) for m in models for b in benchmarks]
    made: dict[Path, Artifact] = {}
    # Models of one base side by side, so that its server starts once.
    bases = list(dict.fromkeys(m.base_path for m in models))
    with _Backends(config, models, api_key) as backends:
        for model, benchmark, plan in sorted(plans, key=lambda item: bases.index(item[0].base_path)):
            job = _Job(config=config, model=model, benchmark=benchmark, backends=backends)
            made[workspace.folder(plan)] = workspace.build(plan, job.make)
    return [made[workspace.folder(plan)] for _, _, plan in plans]


def effective_system_prompt(config: GenerateConfig, benchmark: Benchmark) -> str:
    """The config's system prompt if it has one ('' = none), else the benchmark's."""
    return benchmark.system_prompt if config.system_prompt is None else config.system_prompt


def resolved_dtype(config: GenerateConfig) -> str:
    """The precision by name; an endpoint's is not ours to know and stays `auto`."""
    if config.backend == "vllm":
        return "bfloat16" if config.dtype == "auto" else config.dtype
    if config.backend == "transformers":
        return resolve_dtype(config.dtype, resolve_device(config.device))
    return config.dtype


def endpoint_model(config: GenerateConfig, models: Sequence[ModelRef], api_key: str | None) -> ModelRef:
    """What an endpoint serves, as the model to evaluate; a model that the user names says whose results these are.

    Errors: `ServerError` when the server serves several models and none is chosen; `ConfigError` for several models.
    """
    if len(models) > 1:
        raise ConfigError(
            f"an endpoint serves one model at a time, but {len(models)} are to be evaluated; run them one by one"
        )
    if models:
        return models[0]
    name = config.endpoint_model or _only_model(config, api_key)
    return ModelRef(
        name=slug(name), path=Path("/nonexistent"), content=fingerprint({"endpoint": config.endpoint, "model": name})
    )


def _only_model(config: GenerateConfig, api_key: str | None) -> str:
    assert config.endpoint is not None
    names = OpenAIBackend(config.endpoint, "", api_key=api_key, max_concurrency=1).models()
    if len(names) != 1:
        raise ServerError(f"{config.endpoint} serves {len(names)} models ({', '.join(names)}); give --endpoint-model")
    return names[0]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One model on one benchmark."""

    config: GenerateConfig
    model: ModelRef
    benchmark: Benchmark
    backends: _Backends

    def make(self, draft: Draft) -> None:
        lines = (json.dumps(asdict(problem), ensure_ascii=False) for problem in self.benchmark.problems)
        write_text(draft.path / PROBLEMS, "".join(f"{line}\n" for line in lines))
        requests = list(self._requests())
        with RowLog(draft.path / GENERATIONS, KEY) as generations:
            todo = [r for r in requests if (r.problem_id, r.sample_index) not in generations.known]
            if len(todo) < len(requests):
                log.info("resuming: %d of %d samples are there already", len(requests) - len(todo), len(requests))
            if todo:
                self._sample(draft, generations, todo, len(requests))
        self._count(draft)

    def _requests(self) -> Iterator[Request]:
        system = effective_system_prompt(self.config, self.benchmark)
        before = (Message(role="system", content=system),) if system else ()
        for problem in self.benchmark.problems:
            messages = (*before, Message(role="user", content=problem.prompt))
            for index in range(self.config.n_samples):
                seed = sample_seed(self.config.seed, problem.problem_id, index)
                yield Request(problem_id=problem.problem_id, sample_index=index, messages=messages, seed=seed)

    def _sample(self, draft: Draft, generations: RowLog, todo: list[Request], total: int) -> None:
        sampling = Sampling(
            temperature=self.config.temperature, top_p=self.config.top_p, max_new_tokens=self.config.max_new_tokens,
            repetition_penalty=self.config.repetition_penalty,
        )  # fmt: skip
        events = EventLog(draft.path / "events.jsonl", "generate")
        events.write(message="starting", model=self.model.name, benchmark=self.benchmark.name, missing=len(todo))
        backend = self.backends.of(self.model, draft.path / "logs" / "server.log")
        tokens = 0
        with (
            Progress(events, total, "sample", done=total - len(todo)) as progress,
            contextlib.closing(backend.generate(todo, sampling)) as samples,
        ):
            for sample in samples:
                generations.append([sample])
                tokens += sample["num_tokens"]
                progress.update(1, tokens=tokens)

    def _count(self, draft: Draft) -> None:
        rows = list(read_rows(draft.path / GENERATIONS))
        draft.tokens = sum(r["num_tokens"] for r in rows)
        draft.device = self.backends.device
        draft.counts = {
            "num_problems": len(self.benchmark.problems),
            "num_generations": len(rows),
            "num_truncated": sum(r["finish_reason"] == "length" for r in rows),
            "num_tokens": draft.tokens,
        }


class _Backends:
    """At most one live backend, started when the first sample needs it and replaced when another base is needed."""

    def __init__(self, config: GenerateConfig, models: Sequence[ModelRef], api_key: str | None):
        self.config = config
        self.models = models
        self.api_key = api_key
        self.device: str | None = None
        self._stack = contextlib.ExitStack()
        self._server: tuple[Path, VllmServer] | None = None

    def __enter__(self) -> _Backends:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def of(self, model: ModelRef, log_path: Path) -> Backend:
        """The backend that samples from `model`."""
        config = self.config
        if config.backend == "endpoint":
            assert config.endpoint is not None
            name = config.endpoint_model or _only_model(config, self.api_key)
            return self._client(config.endpoint, name, self.api_key)
        if config.backend == "vllm":
            server = self._serve(model, log_path)
            name = _adapter_name(model) if model.is_adapter else BASE_NAME
            return self._client(server.url, name, server.api_key, server)
        from lark_engine.evaluation.in_process import TransformersBackend

        self.device = resolve_device(config.device)
        return TransformersBackend(
            model, dtype=resolved_dtype(config), device=self.device, batch_size=config.max_concurrency,
            max_model_len=config.max_model_len, chat_template=config.chat_template,
            trust_remote_code=config.trust_remote_code,
        )  # fmt: skip

    def _serve(self, model: ModelRef, log_path: Path) -> VllmServer:
        if self._server is not None and self._server[0] == model.base_path:
            return self._server[1]
        require_vllm()
        self._server = None
        self._stack.close()
        options = ServerOptions(
            dtype=resolved_dtype(self.config), max_model_len=self.config.max_model_len,
            tensor_parallel_size=self.config.tensor_parallel_size, start_timeout_s=self.config.start_timeout_s,
            chat_template=self.config.chat_template, trust_remote_code=self.config.trust_remote_code,
        )  # fmt: skip
        adapters = {_adapter_name(m): m.path for m in self.models if m.is_adapter and m.base_path == model.base_path}
        server = VllmServer(base=model.base_path, adapters=adapters, log_path=log_path, options=options)
        self._stack.enter_context(server)
        self._server = (model.base_path, server)
        self.device = vllm_device()
        return server

    def _client(self, url: str, name: str, api_key: str | None, server: VllmServer | None = None) -> OpenAIBackend:
        check = server.check if server else lambda: None
        return self._stack.enter_context(
            contextlib.closing(
                OpenAIBackend(url, name, api_key=api_key, max_concurrency=self.config.max_concurrency, check=check)
            )
        )


def _adapter_name(model: ModelRef) -> str:
    """What the server calls an adapter: by content, as two folders may have one name."""
    return f"adapter-{model.content}"
