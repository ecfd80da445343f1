"""What the configs of all stages share: frozen models whose fields carry their help and whether they are identity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lark_engine.errors import ConfigError, did_you_mean

Dtype = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]


def option(default: Any, help: str, *, identity: bool = True, **bounds: Any) -> Any:
    """A config field with its line of help; `identity=False` for what cannot change the output."""
    return Field(default, description=help, json_schema_extra={"identity": identity}, **bounds)


class StageConfig(BaseModel):
    """Frozen, checked at construction; unknown keys are refused.

    `groups`: the fields by what they are about, in the order of forms and help; every field is in one of them.
    """

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )

    def identity(self) -> dict[str, Any]:
        """The fields that change the output, as JSON values: what the fingerprint hashes."""
        fields = type(self).model_fields
        hidden = {
            name
            for name, field in fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("identity") is False
        }
        return self.model_dump(mode="json", exclude=hidden)

    @classmethod
    def parse(cls, values: dict[str, Any], where: str) -> Self:
        """Build the config from untrusted values. Errors: `ConfigError` with place, field and remedy."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{where}: {_explain(cls, error)}") from None


def _explain(model: type[BaseModel], error: ValidationError) -> str:
    """The first problem of a validation error in one sentence."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        owner: Any = model
        for part in first["loc"][:-1]:
            owner = getattr(owner.model_fields.get(part), "annotation", None) or model
        known = getattr(owner, "model_fields", model.model_fields)
        if first["loc"][-1] in known:
            return f"'{place}' is given twice, under two names; give it once"
        return f"unknown key '{place}'{did_you_mean(str(first['loc'][-1]), known)}"
    if first["type"] == "missing":
        return f"'{place}' is missing; give it a value"
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return f"'{place}' = {first['input']!r}: {message}" if place else message
