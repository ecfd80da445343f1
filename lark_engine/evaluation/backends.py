"""Which backend samples from which model: at most one is live, started when the first sample needs it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lark_engine.config import GenerateConfig
from lark_engine.errors import ServerError
from lark_engine.evaluation.client import Endpoint, OpenAIClient, RemoteEndpoint, api_url
from lark_engine.evaluation.engines import BASE_NAME, Engine, ServerOptions, check_device, engine_of
from lark_engine.evaluation.sampling import Backend
from lark_engine.evaluation.serving import ModelServer, model_servers
from lark_engine.models import ModelRef, resolve_device, resolve_dtype
from lark_engine.store.events import EventLog

log = logging.getLogger(__name__)

# Requests in flight for each server where the user names no number; sequences of a batch in process.
_IN_FLIGHT = {"vllm": 512, "sglang": 512, "endpoint": 32, "transformers": 16}


@dataclass(frozen=True)
class _Live:
    """Servers of a base model, and the client of each model name on them."""

    base_path: Path
    servers: Sequence[ModelServer]


class Backends:
    """Context manager that gives every model its backend; replaces the servers when another base model is needed.

    `models` are all that will be sampled from: the adapters of a base are served with it.
    """

    def __init__(self, config: GenerateConfig, models: Sequence[ModelRef], api_key: str | None):
        self.config = config
        self.models = models
        self.api_key = api_key
        self.device: str | None = None
        self._events: EventLog | None = None
        self._stack = contextlib.ExitStack()
        self._live: _Live | None = None

    def __enter__(self) -> Backends:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def of(self, model: ModelRef, log_dir: Path, events: EventLog) -> Backend:
        """The backend that samples from `model`; servers that it starts log to `log_dir` and tell `events`."""
        config, self._events = self.config, events
        if config.backend == "endpoint":
            assert config.endpoint is not None
            name = config.endpoint_model or only_model(config, self.api_key)
            return self._client([RemoteEndpoint(api_url(config.endpoint), self.api_key)], name)
        if config.backend == "transformers":
            from lark_engine.evaluation.in_process import TransformersBackend

            self.device = resolve_device(config.device)
            return TransformersBackend(
                model, dtype=resolved_dtype(config), device=self.device, batch_size=in_flight(config),
                max_model_len=config.max_model_len, chat_template=config.chat_template,
                trust_remote_code=config.trust_remote_code,
            )  # fmt: skip
        engine = engine_of(config.backend, config.server_python)
        servers = self._serve(engine, model, log_dir)
        return self._client(servers, engine.adapter_model(adapter_name(model)) if model.is_adapter else BASE_NAME)

    def facts(self, model: ModelRef) -> dict[str, object]:
        """What a manifest says of the servers of a model: engine, version, replicas, and how often one had to start
        again since the first start; nothing where none was needed."""
        if self._live is None or self._live.base_path != model.base_path:
            return {}
        servers = self._live.servers
        return {
            "server": {
                "engine": servers[0].engine.name, "version": servers[0].engine.version, "replicas": len(servers),
                "restarts": sum(server.num_restarts for server in servers),
            }
        }  # fmt: skip

    def _serve(self, engine: Engine, model: ModelRef, log_dir: Path) -> Sequence[ModelServer]:
        if self._live is not None and self._live.base_path == model.base_path:
            return self._live.servers
        self._live = None
        self._stack.close()
        config = self.config
        options = ServerOptions(
            dtype=resolved_dtype(config), max_model_len=config.max_model_len,
            tensor_parallel_size=config.tensor_parallel_size, start_timeout_s=config.start_timeout_s,
            chat_template=config.chat_template, trust_remote_code=config.trust_remote_code,
        )  # fmt: skip
        adapters = {adapter_name(m): m.path for m in self.models if m.is_adapter and m.base_path == model.base_path}
        servers = self._stack.enter_context(
            model_servers(
                engine, model.base_path, adapters, log_dir, options, replicas=config.replicas,
                report=self._report,
            )
        )  # fmt: skip
        self._live = _Live(model.base_path, servers)
        self.device = engine.device
        return servers

    def _report(self, message: str) -> None:
        assert self._events is not None
        self._events.write(message=message)

    def _client(self, endpoints: Sequence[Endpoint], model: str) -> OpenAIClient:
        client = OpenAIClient(endpoints, model, max_concurrency=in_flight(self.config) * len(endpoints))
        return self._stack.enter_context(contextlib.closing(client))


def adapter_name(model: ModelRef) -> str:
    """What a server calls an adapter: by content, as two folders may have one name."""
    return f"adapter-{model.content}"


def in_flight(config: GenerateConfig) -> int:
    """Requests in flight for each server, or sequences of a batch."""
    return config.max_concurrency or _IN_FLIGHT[config.backend]


def resolved_dtype(config: GenerateConfig) -> str:
    """The precision by name; an endpoint's is not ours to know and stays `auto`. Only where it must, torch is asked."""
    if config.dtype != "auto" or config.backend == "endpoint":
        return config.dtype
    return "bfloat16" if config.backend != "transformers" else resolve_dtype("auto", resolve_device(config.device))


def check_backend(config: GenerateConfig) -> None:
    """Errors: what starting the backend would refuse: `ServerError`, `DeviceError`. Starts nothing."""
    if config.backend in ("vllm", "sglang"):
        check_device(config.device, engine_of(config.backend, config.server_python))
    elif config.backend == "transformers":
        resolve_device(config.device)


def only_model(config: GenerateConfig, api_key: str | None) -> str:
    """The one model that an endpoint serves. Errors: `ServerError` when it serves several."""
    assert config.endpoint is not None
    endpoint = RemoteEndpoint(api_url(config.endpoint), api_key)
    with contextlib.closing(OpenAIClient([endpoint], "", max_concurrency=1)) as client:
        names = client.models()
    if len(names) != 1:
        raise ServerError(f"{config.endpoint} serves {len(names)} models ({', '.join(names)}); give --endpoint-model")
    return names[0]
