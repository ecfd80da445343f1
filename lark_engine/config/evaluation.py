"""Options of generating answers and grading them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from lark_engine.config.base import Device, Dtype, StageConfig, option
from lark_engine.evaluation.equality import Equality
from lark_engine.evaluation.extract import DEFAULT_RULES, AnswerType, Rule


class GenerateConfig(StageConfig):
    """Sampling of answers to benchmark problems."""

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Sampling": (
            "n_samples", "temperature", "top_p", "max_new_tokens", "repetition_penalty", "stop_after_box", "seed",
        ),
        "Problems": ("benchmark", "limit", "system_prompt", "chat_template"),
        "Server": (
            "backend", "endpoint", "endpoint_model", "max_model_len", "dtype", "device", "tensor_parallel_size",
            "replicas", "max_concurrency", "server_python", "start_timeout_s", "trust_remote_code",
        ),
    }  # fmt: skip

    benchmark: tuple[str, ...] = option(
        ..., "benchmarks: file, NAME=FILE, or the name of a fetched one", min_length=1, identity=False
    )
    backend: Literal["vllm", "sglang", "endpoint", "transformers"] = option(
        "vllm", "server started by us (vllm, sglang), an OpenAI-compatible server by URL, or transformers in process"
    )
    endpoint: str | None = option(None, "URL of an OpenAI-compatible server (backend endpoint)", identity=False)
    endpoint_model: str | None = option(None, "model name to ask that server for; by default its only one")
    n_samples: int = option(5, "samples for each problem", ge=1)
    temperature: float = option(0.6, "sampling temperature; 0 = greedy", ge=0)
    top_p: float = option(0.95, "nucleus sampling", gt=0, le=1)
    max_new_tokens: int = option(12288, "longest generation in tokens", ge=1)
    repetition_penalty: float = option(1.0, "1.0 = none; the released code hid a 1.1", gt=0)
    stop_after_box: bool = option(False, "end a sample with its first boxed answer outside thinking; the text is kept")
    seed: int = option(0, "seed; sample i of problem p has its own, derived from it", ge=0)
    limit: int | None = option(None, "only the first so many problems of each benchmark", ge=1)
    system_prompt: str | None = option(None, "system prompt instead of the benchmark's own; '' = none")
    chat_template: Path | None = option(None, "Jinja file to use instead of the model's own chat template")
    dtype: Dtype = option("auto", "precision; auto = bfloat16 on CUDA, float32 on CPU (vllm on CPU: bfloat16)")
    device: Device = option("auto", "where to run; auto = CUDA when it is there", identity=False)
    max_model_len: int | None = option(None, "context length of the server; by default the model's", ge=2)
    tensor_parallel_size: int = option(1, "devices for one copy of the model (vllm, sglang)", identity=False, ge=1)
    replicas: int = option(1, "servers side by side; 0 = as many as there are devices for", identity=False, ge=0)
    max_concurrency: int | None = option(
        None, "requests in flight for each server (512; endpoint 32), or sequences of a batch (transformers 16)",
        identity=False, ge=1,
    )  # fmt: skip
    server_python: Path | None = option(
        None, "Python interpreter that vllm or sglang is installed for; by default this one", identity=False
    )
    start_timeout_s: float = option(900.0, "seconds that a server may take to start", identity=False, gt=0)
    trust_remote_code: bool = option(False, "run Python code that comes with the model's files")

    @model_validator(mode="after")
    def _endpoint_has_a_url(self) -> Self:
        if (self.backend == "endpoint") != (self.endpoint is not None):
            raise ValueError("backend 'endpoint' and the option endpoint (a URL) go together; give both or neither")
        return self


class GradeConfig(StageConfig):
    """Extraction and grading of generated answers."""

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Grading": ("rules", "answer_type", "equality", "time_limit_s", "workers")
    }

    rules: tuple[Rule, ...] = option(
        DEFAULT_RULES, "ways to find the answer, tried in this order; last_number only if asked for", min_length=1
    )
    answer_type: AnswerType | None = option(None, "how answers are read and compared; by default as the benchmark says")
    equality: Equality = option("strict", "how answers are compared: our rules, or math-verify's as they are")
    time_limit_s: float = option(5.0, "seconds that grading one answer may take", gt=0, le=600)
    workers: int = option(0, "worker processes; 0 = one for each core", identity=False, ge=0)
