"""An operation: a named async function on one item, its schema, and the rules for running and retrying it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, TypeVar, get_args
from uuid import UUID

from pydantic import BaseModel

from chassis.egress.client import HttpAnswer, HttpRequest
from contracts.batch_options import RateLimit
from contracts.items import OPERATION_NAME
from contracts.message import Command, Json, Request
from contracts.scopes import Scope

# A key that several operations share, for example a provider: a kind and a name.
LIMIT_KEY = r"[a-z][a-z0-9-]{0,39}:[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_MOST_ATTEMPTS = 1000
_LONGEST_WAIT_S = 30 * 86_400
_LARGEST_POWER = 40

# During a rolling upgrade, a replica of the newer release may have an operation that this one lacks: for so
# many seconds, and for so many attempts of a message, the work is left to it. A roll-out takes less.
LEFT_TO_OTHERS_S = 300.0
TRIES_LEFT_TO_OTHERS = 4

# Items of the class `io` spend most of their time waiting, those of `cpu` computing.
Resource = Literal["io", "cpu"]

R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")


class Asks(Protocol):
    """Sends a request to another service."""

    async def __call__(self, request: Request, reply: type[R], *, timeout_s: float) -> R:
        """Return the answer. Raise a `ServiceError` that says whether trying again can help."""


class Computes(Protocol):
    """Runs a function in another process, so that the event loop stays free."""

    async def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return the result of `function`; it and its arguments must be picklable."""


class Fetches(Protocol):
    """Sends an HTTP request to a public server, or to an internal target that the operator allows."""

    async def __call__(self, request: HttpRequest, *, timeout_s: float) -> HttpAnswer:
        """Return the answer, whatever its status; redirects are not followed.

        Raise `DestinationRefused`, `DestinationUnreachable` or `AnswerTooLarge`.
        """


class Sends(Protocol):
    """Sends a command to another service, in the transaction that stores the item's result."""

    def __call__(self, command: Command, message_id: UUID, /, *, is_bulk: bool = False) -> None:
        """Write `command` into the outbox; `message_id` must be the same whenever the item runs.

        With `is_bulk` the command waits in the bulk queue, if the service has one.
        """


class Shares(Protocol):
    """Caches values that the items of one chunk share."""

    async def __call__(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """Return the value of `key`: the first item that needs it makes it, the others await it."""


@dataclass(frozen=True, slots=True)
class Context:
    """The item that an operation runs on, and the tools that the operation may use.

    `payload_text` is the item's payload as it was written, for data that must arrive byte for byte.
    """

    batch_id: UUID
    position: int
    owner_id: str
    attempt: int
    accepted_at: datetime
    payload_text: str
    ask: Asks
    compute: Computes
    fetch: Fetches
    share: Shares
    send: Sends


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The number of attempts at an item whose error is retryable, and the waits between them (seconds)."""

    max_attempts: int = 4
    first_s: float = 1
    factor: float = 4
    most_s: float = 300

    def __post_init__(self) -> None:
        """Raise `ValueError` for a policy that would repeat for ever, or has an invalid wait."""
        if not 1 <= self.max_attempts <= _MOST_ATTEMPTS:
            raise ValueError(f"max_attempts is {self.max_attempts}; it must be 1 to {_MOST_ATTEMPTS}")
        waits = {"first_s": self.first_s, "factor": self.factor, "most_s": self.most_s}
        for name, value in waits.items():
            if not 0 <= value <= _LONGEST_WAIT_S:
                raise ValueError(f"{name} is {value}; it must be 0 to {_LONGEST_WAIT_S}")

    def delay_s(self, attempt: int) -> float | None:
        """Return the seconds to wait after the failed `attempt` (from 1); None when it was the last."""
        if attempt >= self.max_attempts:
            return None
        # The power of a thousandth attempt is more than a float holds.
        return min(self.most_s, self.first_s * self.factor ** min(attempt - 1, _LARGEST_POWER))


@dataclass(frozen=True)
class Operation:
    """A named function on an item. `run` takes a validated `payload` and returns a JSON value.

    The owner of a batch needs all of `required_scopes`. An item that is not done after `timeout_s` fails
    and is tried again. Up to `concurrency` items of a chunk run at once; those of the resource class `cpu`
    run one at a time, and may block the loop of their process until their deadline. `run_texts` is for
    functions that cost next to nothing: it takes the payloads of a whole chunk, or of several tasks of one
    owner, as unparsed JSON texts, and returns the results as JSON texts in the same order.

    Over all owners and workers, at most `max_concurrency` items run at once, and no more begin than
    `rate_limit` allows. The operation also counts under `limit_key`, for which the operator sets limits.
    """

    name: str
    description: str
    payload: type[BaseModel] | None
    run: Callable[[Any, Context], Awaitable[Json]]
    run_texts: Callable[[Sequence[str]], Sequence[str]] | None = None
    required_scopes: frozenset[Scope] = frozenset()
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    chunk_size: int = 100
    concurrency: int = 20
    timeout_s: float = 30
    resource: Resource = "io"
    max_concurrency: int | None = None
    rate_limit: RateLimit | None = None
    limit_key: str | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for a name that callers cannot send, or limits under which no item can run."""
        if not re.fullmatch(OPERATION_NAME, self.name):
            raise ValueError(f"the name of an operation is {self.name!r}; it must match {OPERATION_NAME}")
        if unknown := sorted(set(self.required_scopes) - set(Scope)):
            raise ValueError(
                f"required_scopes of the operation {self.name!r} has {', '.join(map(repr, unknown))}; "
                f"the scopes are {', '.join(sorted(Scope))}"
            )
        if self.resource not in get_args(Resource):
            raise ValueError(
                f"resource of the operation {self.name!r} is {self.resource!r}; it must be io or cpu"
            )
        if self.limit_key is not None and not re.fullmatch(LIMIT_KEY, self.limit_key):
            raise ValueError(
                f"limit_key of the operation {self.name!r} is {self.limit_key!r}; "
                "it must be a kind and a name, like provider:alpaca"
            )
        for name in ("chunk_size", "concurrency", "timeout_s", "max_concurrency"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(
                    f"{name} of the operation {self.name!r} is {getattr(self, name)}; it must be over 0"
                )

    @property
    def lanes(self) -> int:
        """Return how many items of a chunk run at once."""
        return 1 if self.resource == "cpu" else self.concurrency

    @property
    def piece(self) -> int:
        """Return how many items the limits let through together: as many as a chunk runs at once."""
        return self.chunk_size if self.run_texts is not None else self.lanes

    @property
    def item_schema(self) -> dict[str, Json]:
        """Return the JSON Schema of an item's payload; empty when every value fits."""
        return self.payload.model_json_schema() if self.payload is not None else {}
