"""Sampling of answers to benchmark problems: one artifact for each model and benchmark, resumable per sample."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lark_engine.chat import OPENING, ChatRenderer, read_template, template_text
from lark_engine.config import GenerateConfig
from lark_engine.errors import ConfigError
from lark_engine.evaluation.backends import Backends, check_backend, only_model, resolved_dtype
from lark_engine.evaluation.benchmarks import Benchmark, load_benchmark
from lark_engine.evaluation.client import shown_url
from lark_engine.evaluation.sampling import TRUNCATED, Request, Sampling, sample_seed
from lark_engine.models import ModelRef, context_length, load_tokenizer
from lark_engine.printing import one_line
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
# The options that people tell samplings apart by, with their short names.
SAMPLING_OPTIONS = {
    "n_samples": "n", "temperature": "T", "top_p": "p", "max_new_tokens": "tokens", "repetition_penalty": "penalty",
    "stop_after_box": "stop_after_box", "seed": "seed", "backend": "by",
    "dtype": "dtype", "max_model_len": "context",
}  # fmt: skip


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
        inputs={**model.inputs, **({"benchmark": benchmark.artifact.ref} if benchmark.artifact else {})},
        identity={
            "model": {
                "name": model.name, "content": model.content, "is_adapter": model.is_adapter, "origin": model.origin,
            },
            **({"endpoint": shown_url(config.endpoint)} if config.endpoint else {}),
            "benchmark": {
                "name": benchmark.name, "content": benchmark.content, "answer_type": benchmark.answer_type,
                "system_prompt": prompt, "own_system_prompt": benchmark.system_prompt, "source": benchmark.source,
                "limit": config.limit,
            },
        },
        seed=config.seed,
        parent=workspace.root / "evals" / slug(model.name),
    )  # fmt: skip


def generate(
    config: GenerateConfig, workspace: Workspace, models: Sequence[ModelRef], *, api_key: str | None = None,
    on_finished: Callable[[Artifact], None] | None = None,
) -> list[Artifact]:  # fmt: skip
    """Sample every benchmark of the config from every model; artifacts in that order, finished ones as they are.

    Servers are started for each base model, and only when a sample of it is missing; they serve the base and all its
    adapters. With backend `endpoint`, `models` may be empty: then the server's model is what is evaluated; `api_key`
    is the endpoint's. `on_finished` gets each artifact once it is whole, while the others are still to be made. After
    an error, a kill or Ctrl-C the same call makes only what is missing.
    Errors: `PoolError` for a bad benchmark, `ServerError`, `StudentError`, `DeviceError`.
    """
    benchmarks = [load_benchmark(name, limit=config.limit, workspace=workspace) for name in config.benchmark]
    if config.backend == "endpoint":
        models = [endpoint_model(config, models, api_key)]
        if config.stop_after_box and config.chat_template is None and not models[0].base_path.is_dir():
            raise ConfigError(
                "--stop-after-box must know whether the chat template opens the thinking block; say with --model-path "
                "which model the endpoint serves"
            )
    check_backend(config)
    plans = [(m, b, plan_generation(config, workspace, m, b)) for m in models for b in benchmarks]
    made: dict[Path, Artifact] = {}
    # Models of one base side by side, so that its servers start once.
    bases = list(dict.fromkeys(m.base_path for m in models))
    with Backends(config, models, api_key) as backends:
        for model, benchmark, plan in sorted(plans, key=lambda item: bases.index(item[0].base_path)):
            job = _Job(config=config, model=model, benchmark=benchmark, backends=backends)
            made[workspace.folder(plan)] = workspace.build(plan, job.make)
            if on_finished is not None:
                on_finished(made[workspace.folder(plan)])
    return [made[workspace.folder(plan)] for _, _, plan in plans]


def effective_system_prompt(config: GenerateConfig, benchmark: Benchmark) -> str:
    """The config's system prompt if it has one ('' = none), else the benchmark's."""
    return benchmark.system_prompt if config.system_prompt is None else config.system_prompt


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
    name = config.endpoint_model or only_model(config, api_key)
    return ModelRef(
        name=slug(name), path=Path("/nonexistent"), content=fingerprint({"endpoint": config.endpoint, "model": name})
    )


def most_tokens(config: GenerateConfig, model: ModelRef) -> int:
    """The limit of a sample. Servers refuse one longer than their context; they cut what reaches its end."""
    if config.backend == "endpoint":
        return config.max_new_tokens
    context = config.max_model_len or context_length(model)
    return min(config.max_new_tokens, context - 1) if context else config.max_new_tokens


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One model on one benchmark."""

    config: GenerateConfig
    model: ModelRef
    benchmark: Benchmark
    backends: Backends

    def make(self, draft: Draft) -> None:
        prompt = one_line(effective_system_prompt(self.config, self.benchmark) or "none", 1000)
        log.info(
            "%s: %d problems, %d samples of each from %s; answers: %s; system prompt: %s", self.benchmark.name,
            len(self.benchmark.problems), self.config.n_samples, self.model.name, self.benchmark.answer_type, prompt,
        )  # fmt: skip
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
        starts_in_thinking = self._starts_in_thinking()
        for problem in self.benchmark.problems:
            messages = (*before, Message(role="user", content=problem.prompt))
            for index in range(self.config.n_samples):
                yield Request(
                    problem_id=problem.problem_id, sample_index=index, messages=messages,
                    seed=sample_seed(self.config.seed, problem.problem_id, index),
                    starts_in_thinking=starts_in_thinking,
                )  # fmt: skip

    def _starts_in_thinking(self) -> bool:
        """Whether samples begin inside a thinking block, as the model's template says.

        An endpoint's is known where the user names the model that it serves, or a template.
        """
        config = self.config
        if OPENING not in template_text(self.model.base_path, config.chat_template):
            return False
        if not self.model.base_path.is_dir():
            raise ConfigError(
                f"{config.endpoint}: whether its chat template opens the thinking block is not known; say with "
                "--model-path which model it serves"
            )
        tokenizer = load_tokenizer(self.model, trust_remote_code=config.trust_remote_code)
        return ChatRenderer(tokenizer, chat_template=config.chat_template, name=self.model.name).opens_thinking()

    def _sample(self, draft: Draft, generations: RowLog, todo: list[Request], total: int) -> None:
        sampling = Sampling(
            temperature=self.config.temperature, top_p=self.config.top_p, 
            max_new_tokens=most_tokens(self.config, self.model),
            repetition_penalty=self.config.repetition_penalty, stop_after_box=self.config.stop_after_box,
        )  # fmt: skip
        events = EventLog(draft.path / "events.jsonl", "generate")
        events.write(message="starting", model=self.model.name, benchmark=self.benchmark.name, missing=len(todo))
        backend = self.backends.of(self.model, draft.path / "logs", events)
        tokens = 0
        with (
            Progress(events, total, "sample", done=total - len(todo), resumes=True) as progress,
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
        draft.metrics = self.backends.facts(self.model)
        draft.counts = {
            "num_problems": len(self.benchmark.problems),
            "num_generations": len(rows),
            "num_truncated": sum(r["finish_reason"] == TRUNCATED for r in rows),
            "num_tokens": draft.tokens,
        }
