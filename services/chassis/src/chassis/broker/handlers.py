"""Kinds of handlers: the effect of a message is committed with its inbox row, or by the handler itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chassis.broker.envelope import Delivery
from chassis.postgres import Connection


@dataclass(frozen=True, slots=True)
class InTransaction:
    """A handler whose effect, inbox rows and outbox rows commit together; it takes up to `group` messages.

    `committed` is called after each commit: the place to wake the relay.
    """

    function: Callable[[Connection, Sequence[Delivery[Any]]], Awaitable[None]]
    group: int = 1
    committed: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Direct:
    """A handler that is idempotent by a natural key and manages its own transactions."""

    function: Callable[[Delivery[Any]], Awaitable[None]]
    group: int = 1


Handler = InTransaction | Direct
