"""What an operation is: a named async function on one item, its schema, and how it is run and retried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel

from contracts.message import Command, Json, Request
from contracts.scopes import Scope

R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")


class Asks(Protocol):
    """Asks another service a question."""

    async def __call__(self, request: Request, reply: type[R], *, timeout_s: float) -> R:
        """The answer; raises a `ServiceError` that says whether trying again can help."""


class Computes(Protocol):
    """Runs a function in another process, so that the event loop stays free."""

    async def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        """What `function` returns; it and its arguments must be picklable."""


class Shares(Protocol):
    """Remembers what the items of one chunk have in common."""

    async def __call__(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """The value of `key`: made by the first item that asks, awaited by the others."""


@dataclass(frozen=True, slots=True)
class Context:
    """What an operation knows of its item and may use.

    `send` takes a command and an id, which must be the same whenever the item runs: it goes into the outbox
    in the transaction that stores the item's result.
    """

    batch_id: UUID
    position: int
    owner_id: str
    attempt: int
    accepted_at: datetime
    ask: Asks
    compute: Computes
    share: Shares
    send: Callable[[Command, UUID], None]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often an item is tried whose error is retryable, and how long it waits in between (seconds)."""

    max_attempts: int = 4
    first_s: float = 1
    factor: float = 4
    most_s: float = 300

    def delay_s(self, attempt: int) -> float | None:
        """Seconds to wait after the failed `attempt` (from 1); None when it was the last."""
        if attempt >= self.max_attempts:
            return None
        return min(self.most_s, self.first_s * self.factor ** (attempt - 1))


@dataclass(frozen=True)
class Operation:
    """A named function on an item. `run` takes a validated `payload` and returns a JSON value.

    The owner of a batch needs all of `required_scopes`. An item that is not done after `timeout_s` fails
    and is tried again. `run_texts` is for functions that cost next to nothing: it takes the payloads of a
    whole chunk as JSON texts, unread, and returns the results as JSON texts in the same order.
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

    @property
    def item_schema(self) -> dict[str, Json]:
        """The JSON Schema of an item's payload; empty when every value fits."""
        return self.payload.model_json_schema() if self.payload is not None else {}
