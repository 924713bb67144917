"""Settings from environment variables: frozen, validated at start, secrets also from files."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo

S = TypeVar("S", bound="Settings")


class InvalidSettings(Exception):
    """One or more environment variables are missing or wrong; the text names each with an example."""


class Settings(BaseModel):
    """What every service needs. A field is read from `<prefix><NAME>`, or from its alias as it stands."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    prefix: ClassVar[str] = ""

    rabbitmq_url: SecretStr = Field(
        alias="RABBITMQ_URL",
        description="AMQP address of RabbitMQ with user, password and virtual host",
        examples=["amqp://gateway:secret@127.0.0.1:5672/tickwire"],
    )
    postgres_dsn: SecretStr = Field(
        alias="POSTGRES_DSN",
        description="address of the service's own PostgreSQL database",
        examples=["postgresql://gateway:secret@127.0.0.1:5432/gateway"],
    )
    memcached_address: str = Field(
        default="127.0.0.1:11211",
        alias="MEMCACHED_ADDRESS",
        pattern=r"^.+:\d+$",
        description="host:port of memcached",
        examples=["127.0.0.1:11211"],
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", alias="LOG_LEVEL", description="least severity that is logged", examples=["INFO"]
    )
    log_format: Literal["auto", "json", "pretty"] = Field(
        default="auto",
        alias="LOG_FORMAT",
        description="json lines, or pretty for a terminal; auto looks whether there is one",
        examples=["json"],
    )
    otlp_endpoint: str | None = Field(
        default=None,
        alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        pattern=r"^https?://",
        description="address of an OpenTelemetry collector (OTLP over HTTP); none: no traces are recorded",
        examples=["http://127.0.0.1:4318"],
    )
    trace_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        alias="OTEL_TRACES_SAMPLER_ARG",
        description="share of the traces begun here that is recorded",
        examples=["0.1"],
    )
    shutdown_delay_s: float = Field(
        default=0,
        ge=0,
        le=300,
        alias="SHUTDOWN_DELAY_S",
        description="seconds between reporting not ready and closing the door, for load balancers to notice",
        examples=["5"],
    )
    shutdown_grace_s: float = Field(
        default=20,
        gt=0,
        le=300,
        alias="SHUTDOWN_GRACE_S",
        description="seconds that running requests and messages get to finish at a stop",
        examples=["20"],
    )
    postgres_pool_size: int = Field(
        default=10,
        ge=2,
        le=200,
        alias="POSTGRES_POOL_SIZE",
        description="most connections to PostgreSQL of one process",
        examples=["10"],
    )


def variable(model: type[Settings], name: str, field: FieldInfo) -> str:
    """The environment variable that a field is read from."""
    return field.alias or f"{model.prefix}{name}".upper()


def load(model: type[S], environ: Mapping[str, str] | None = None) -> S:
    """Read `model` from the environment; a variable `X_FILE` gives the path of a file that holds X."""
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, field in model.model_fields.items():
        key = variable(model, name, field)
        try:
            value = _read(environ, key)
        except OSError as error:
            problems.append(f"{key}_FILE: {error.strerror}: {environ[key + '_FILE']}")
            continue
        if value is not None:
            values[name] = value
    try:
        return model.model_validate(values, by_name=True) if not problems else _refuse(problems)
    except ValidationError as error:
        return _refuse([_explain(model, problem) for problem in error.errors()])


def load_or_exit(model: type[S]) -> S:
    """`load`, but a broken setting ends the process with its message and exit code 2."""
    try:
        return load(model)
    except InvalidSettings as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None


def _read(environ: Mapping[str, str], key: str) -> str | None:
    if environ.get(f"{key}_FILE"):
        return Path(environ[f"{key}_FILE"]).read_text(encoding="utf-8").strip()
    return environ.get(key)


def _explain(model: type[Settings], problem: Any) -> str:
    # A value is never repeated here: it may be a secret.
    name = str(problem["loc"][0])
    found = {variable(model, n, f): (n, f) for n, f in model.model_fields.items()}
    key = name if name in found else variable(model, name, model.model_fields[name])
    field = found[key][1]
    what = "is not set" if problem["type"] == "missing" else problem["msg"].lower()
    example = f" (for example {key}={field.examples[0]})" if field.examples else ""
    return f"{key}: {what}; it is {field.description}{example}"


def _refuse(problems: list[str]) -> NoReturn:
    raise InvalidSettings("Settings are wrong:\n" + "\n".join(f"  {line}" for line in problems))
