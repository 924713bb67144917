"""Settings from environment variables: frozen, validated at start, secrets also from files."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
)
from pydantic.fields import FieldInfo

from chassis import logging, redaction, validation
from contracts import addresses, domains

S = TypeVar("S", bound="Settings")
T = TypeVar("T")

# How similar two names must be, from 0 to 1.
_ALIKE = 0.8
_ALMOST_EQUAL = 0.9
_OF_A_CLUSTER = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_[0-9]+_")


class InvalidSettings(Exception):
    """One or more environment variables are missing or wrong; the text names each with an example."""


def require_address(value: SecretStr, *, schemes: Sequence[str]) -> SecretStr:
    """Return `value` if every library reads it as the same address. Raise `ValueError` without repeating it.

    A `/` or `#` in a password ends the address early: the rest would be read as a port, and be shown as an
    invalid one.
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


def readable_by(reader: Callable[[Any], object]) -> AfterValidator:
    """Return a validator which requires that `reader` can parse a value; the value itself stays unparsed."""

    def check(value: T) -> T:
        reader(value)
        return value

    return AfterValidator(check)


_AMQP = partial(require_address, schemes=("amqp", "amqps"))
_POSTGRESQL = partial(require_address, schemes=("postgresql", "postgres"))


class Settings(BaseModel):
    """The settings of all services.

    A field is read from `<prefix><NAME>`, or from its alias without a prefix.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    prefix: ClassVar[str] = ""
    _files: dict[str, Path] = PrivateAttr(default_factory=dict)

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
    log_format: logging.Style = Field(
        default="auto",
        alias="LOG_FORMAT",
        description="json lines, or pretty for a terminal; auto: pretty where there is one",
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
    refused_mail_domains: str = Field(
        default=",".join(addresses.REFUSED_DOMAINS),
        alias="REFUSED_MAIL_DOMAINS",
        pattern=r"^[A-Za-z0-9., -]*$",
        description="special-use domains that no e-mail address may be in; test,example,local may be added",
        examples=["arpa,invalid,localhost,onion,test,example,local"],
    )
    allowed_sender_domains: Annotated[str, readable_by(domains.AllowedSenders.read)] = Field(
        default="",
        alias="ALLOWED_SENDER_DOMAINS",
        description="domains that everybody may send from, beside verified ones; none: no others; empty: all",
        examples=["none", "example.com, news.example.com"],
    )
    shutdown_delay_s: float = Field(
        default=0,
        ge=0,
        le=300,
        alias="SHUTDOWN_DELAY_S",
        description="seconds from reporting not ready to the end of listening, for load balancers to notice",
        examples=["5"],
    )
    shutdown_grace_s: float = Field(
        default=20,
        gt=0,
        le=300,
        alias="SHUTDOWN_GRACE_S",
        description="seconds that running requests and messages have to finish at shutdown",
        examples=["20"],
    )
    postgres_pool_size: int = Field(
        default=12,
        ge=2,
        le=200,
        alias="POSTGRES_POOL_SIZE",
        description="most connections to PostgreSQL of one process; two of them are for its own work",
        examples=["12"],
    )
    message_bundles: bool = Field(
        default=True,
        alias="MESSAGE_BUNDLES",
        description="whether messages travel in bundles; off while a release that reads none runs beside",
        examples=["off"],
    )

    def came_from(self, files: Mapping[str, Path]) -> None:
        """Remember the files that values came from, by field."""
        self._files.update(files)

    def current_secret(self, name: str) -> str:
        """Return the secret of a field as its file has it now, or as it was loaded without a file.

        A process that was started before a password was changed can log in again with it.
        """
        loaded: str = getattr(self, name).get_secret_value()
        if name not in self._files:
            return loaded
        found = self._files[name].read_text(encoding="utf-8").strip()
        if found and found != loaded:
            redaction.remember(_with_passwords({found}))
        return found or loaded


def variable(model: type[Settings], name: str, field: FieldInfo) -> str:
    """Return the environment variable that a field is read from."""
    return field.alias or f"{model.prefix}{name}".upper()


def read(environ: Mapping[str, str], key: str) -> str | None:
    """Return the value of the variable `key`, or the content of the file that `<key>_FILE` names."""
    if environ.get(f"{key}_FILE"):
        # An empty file is a secret that nobody has filled in.
        return Path(environ[f"{key}_FILE"]).read_text(encoding="utf-8").strip() or None
    return environ.get(key)


def load(model: type[S], environ: Mapping[str, str] | None = None) -> S:
    """Read `model` from the environment; a variable `X_FILE` names a file that holds X."""
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    problems: list[str] = []
    unreadable: set[str] = set()
    files: dict[str, Path] = {}
    for name, field in model.model_fields.items():
        key = variable(model, name, field)
        try:
            value = read(environ, key)
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "is not text"
            problems.append(f"{key}_FILE: {why}: {environ[key + '_FILE']}")
            unreadable |= {name, key}
            continue
        if value is not None:
            values[name] = value
        if environ.get(f"{key}_FILE"):
            files[name] = Path(environ[f"{key}_FILE"])
    try:
        loaded = model.model_validate(values, by_name=True)
    except ValidationError as error:
        # A value whose file cannot be read is named already.
        rest = [problem for problem in error.errors() if unreadable.isdisjoint(problem["loc"])]
        problems += [_explain(model, problem) for problem in rest]
    if problems:
        raise InvalidSettings("Settings are wrong:\n" + "\n".join(f"  {line}" for line in problems))
    loaded.came_from(files)
    return loaded


def unknown(
    models: Iterable[type[Settings]], environ: Mapping[str, str], *, others: Iterable[str] = ()
) -> dict[str, str | None]:
    """Return the variables of `environ` that look like settings of `models` but are unknown.

    They begin with a model's prefix, or almost match a shared setting or one of `others`, which are known
    elsewhere. The value of each is the known variable with the most similar spelling, if there is one.
    Variables that a cluster sets for its services (`GATEWAY_SERVICE_HOST`, `GATEWAY_PORT_8080_TCP`) are
    ignored.
    """
    models = tuple(models)
    known = {variable(model, n, field) for model in models for n, field in model.model_fields.items()}
    known |= {f"{name}_FILE" for name in known} | set(others)
    prefixes = tuple(model.prefix for model in models if model.prefix)
    found: dict[str, str | None] = {}
    for name in sorted(environ.keys() - known):
        if _OF_A_CLUSTER.search(name):
            continue
        is_ours = name.startswith(prefixes)
        nearest = get_close_matches(name, known, n=1, cutoff=_ALIKE if is_ours else _ALMOST_EQUAL)
        if is_ours or nearest:
            found[name] = nearest[0] if nearest else None
    return found


def load_or_exit(model: type[S]) -> S:
    """Load the settings of a process; invalid ones end the process with a message and exit code 2.

    From now on its secrets are redacted from logs.
    """
    # Before `load`: when a setting is missing, its misspelled name is printed above the error.
    for name, nearest in unknown([model], os.environ).items():
        advice = f"; did you mean {nearest}?" if nearest else ""
        sys.stderr.write(f"unknown setting, ignored: {name}{advice}\n")
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
    return _with_passwords(value.get_secret_value() for value in values if isinstance(value, SecretStr))


def _with_passwords(texts: Iterable[str]) -> set[str]:
    """Return secrets with the passwords in those that are addresses."""
    found = set(texts)
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
    what = "is not set" if problem["type"] == "missing" else validation.words(problem)
    example = f" (for example {key}={field.examples[0]})" if field.examples else ""
    return f"{key}: {what}; it is {field.description}{example}"
