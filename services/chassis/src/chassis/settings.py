"""Settings from environment variables: frozen, validated at start, secrets also from files."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from chassis import redaction

S = TypeVar("S", bound="Settings")


class InvalidSettings(Exception):
    """One or more environment variables are missing or wrong; the text names each with an example."""


def require_address(value: SecretStr, *, schemes: Sequence[str]) -> SecretStr:
    """Return `value` if it is an address that every library reads alike; else raise, without repeating it.

    A password with a `/` or `#` of its own ends the address early: what is left of it would be taken for a
    port, and be shown as a wrong one.
    """
    try:
        parts = urlsplit(value.get_secret_value())
        hosts = parts.netloc.rpartition("@")[2].split(",")
        ports = [urlsplit(f"//{host}").port for host in hosts]
    except ValueError:
        ports = []
    if not ports or parts.scheme not in schemes or parts.fragment:
        like = f"{schemes[0]}://<user>:<password>@<host>:<port>"
        raise ValueError(f"is not an address like {like}, special characters written as %xx")
    return value


_AMQP = partial(require_address, schemes=("amqp", "amqps"))
_POSTGRESQL = partial(require_address, schemes=("postgresql", "postgres"))


class Settings(BaseModel):
    """The settings of all services. A field is read from `<prefix><NAME>`, or from its alias as it stands."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    prefix: ClassVar[str] = ""

    rabbitmq_url: Annotated[SecretStr, AfterValidator(_AMQP)] = Field(
        alias="RABBITMQ_URL",
        description="AMQP address of RabbitMQ with user, password and virtual host",
        examples=["amqp://gateway:secret@127.0.0.1:5672/tickwire"],
    )
    postgres_dsn: Annotated[SecretStr, AfterValidator(_POSTGRESQL)] = Field(
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
        description="seconds between not being ready and the end of listening, for load balancers to notice",
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
    """Return the environment variable that a field is read from."""
    return field.alias or f"{model.prefix}{name}".upper()


def read(environ: Mapping[str, str], key: str) -> str | None:
    """Return the value of the variable `key`, or what the file holds that `<key>_FILE` names."""
    if environ.get(f"{key}_FILE"):
        # An empty file is a secret that nobody has filled in.
        return Path(environ[f"{key}_FILE"]).read_text(encoding="utf-8").strip() or None
    return environ.get(key)


def load(model: type[S], environ: Mapping[str, str] | None = None) -> S:
    """Read `model` from the environment; a variable `X_FILE` gives the path of a file that holds X."""
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, field in model.model_fields.items():
        key = variable(model, name, field)
        try:
            value = read(environ, key)
        except OSError as error:
            problems.append(f"{key}_FILE: {error.strerror}: {environ[key + '_FILE']}")
            continue
        except UnicodeDecodeError:
            problems.append(f"{key}_FILE: is not text: {environ[key + '_FILE']}")
            continue
        if value is not None:
            values[name] = value
    try:
        return model.model_validate(values, by_name=True) if not problems else _refuse(problems)
    except ValidationError as error:
        return _refuse([_explain(model, problem) for problem in error.errors()])


def load_or_exit(model: type[S]) -> S:
    """Load the settings of a process; a wrong one ends it with a message and exit code 2.

    From now on the process never says its secrets.
    """
    try:
        settings = load(model)
    except InvalidSettings as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    redaction.remember(secrets(settings))
    return settings


def secrets(settings: Settings) -> set[str]:
    """Return the secrets in `settings`, and the passwords in their addresses."""
    values = [getattr(settings, name) for name in type(settings).model_fields]
    found = {value.get_secret_value() for value in values if isinstance(value, SecretStr)}
    for address in [text for text in found if "://" in text]:
        parts = urlsplit(address)
        name, password = unquote(parts.username or ""), parts.password or ""
        if password:
            # As it is written, as it is meant, and as HTTP sends it.
            found |= {password, unquote(password), f"{name}:{unquote(password)}"}
    return found


def _explain(model: type[Settings], problem: Any) -> str:
    # A value is never repeated here: it may be a secret.
    name = str(problem["loc"][0])
    found = {variable(model, n, f): (n, f) for n, f in model.model_fields.items()}
    key = name if name in found else variable(model, name, model.model_fields[name])
    field = found[key][1]
    what = (
        "is not set" if problem["type"] == "missing" else problem["msg"].removeprefix("Value error, ").lower()
    )
    example = f" (for example {key}={field.examples[0]})" if field.examples else ""
    return f"{key}: {what}; it is {field.description}{example}"


def _refuse(problems: list[str]) -> NoReturn:
    raise InvalidSettings("Settings are wrong:\n" + "\n".join(f"  {line}" for line in problems))
