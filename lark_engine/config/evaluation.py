"""Options of generating answers and grading them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from lark_engine.config.base import Device, Dtype, StageConfig, option


class GenerateConfig(StageConfig):
    """Sampling of answers to benchmark problems."""

    benchmark: tuple[str, ...] = option(..., "benchmarks by name or JSON file", min_length=1, identity=False)
    backend: Literal["vllm", "endpoint", "transformers"] = option(
        "vllm", "vLLM server started by us, an OpenAI-compatible server by URL, or transformers in process"
    )
    endpoint: str | None = option(None, "URL of an OpenAI-compatible server (backend endpoint)", identity=False)
    endpoint_model: str | None = option(None, "model name to ask that server for; by default its only one")
    n_samples: int = option(5, "samples for each problem", ge=1)
    temperature: float = option(0.6, "sampling temperature; 0 = greedy", ge=0)
    top_p: float = option(0.95, "nucleus sampling", gt=0, le=1)
    max_new_tokens: int = option(12288, "longest generation in tokens", ge=1)
    repetition_penalty: float = option(1.0, "1.0 = none; the released code hid a 1.1", gt=0)
    seed: int = option(0, "seed; sample i of problem p has its own, derived from it", ge=0)
    limit: int | None = option(None, "only the first so many problems of each benchmark", ge=1)
    system_prompt: str | None = option(None, "system prompt instead of the benchmark's own; '' = none")
    chat_template: Path | None = option(None, "Jinja file to use instead of the model's own chat template")
    dtype: Dtype = option("auto", "precision; auto = bfloat16 on CUDA, float32 on CPU (vllm on CPU: bfloat16)")
    device: Device = option("auto", "where to run; auto = CUDA when it is there", identity=False)
    max_model_len: int | None = option(None, "context length of the server; by default the model's", ge=2)
    tensor_parallel_size: int = option(1, "devices for one copy of the model (vllm)", identity=False, ge=1)
    max_concurrency: int = option(64, "requests in flight at once", identity=False, ge=1)
    start_timeout_s: float = option(900.0, "seconds that a server may take to start", identity=False, gt=0)
    trust_remote_code: bool = option(False, "run Python code that comes with the model's files")

    @model_validator(mode="after")
    def _endpoint_has_a_url(self) -> Self:
        if (self.backend == "endpoint") != (self.endpoint is not None):
            raise ValueError("backend 'endpoint' and the option endpoint (a URL) go together; give both or neither")
        return self


class GradeConfig(StageConfig):
    """Extraction and grading of generated answers."""

    time_limit_s: float = option(5.0, "seconds that grading one answer may take", gt=0, le=600)
    workers: int = option(0, "worker processes; 0 = one for each core", identity=False, ge=0)
