"""The context in which operations run: requests to other services, processes, shared values of a chunk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar
from uuid import UUID

from batch_processor.execution.chunks import Post
from batch_processor.execution.running_chunk import Origin
from batch_processor.operation import Asks, Computes, Context, Fetches
from chassis.broker.envelope import command
from contracts.message import Command

T = TypeVar("T")


class SharedValues:
    """Values that the items of one chunk share; each is made once, even when many need it at once."""

    def __init__(self) -> None:
        self._made: dict[Hashable, asyncio.Future[Any]] = {}

    async def share(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """Return the value of `key`. All waiting callers get its error; the next call makes it anew."""
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = asyncio.ensure_future(make())

            def forget_failed(done: asyncio.Future[Any]) -> None:
                if done.cancelled() or done.exception() is not None:
                    self._made.pop(key, None)

            made.add_done_callback(forget_failed)
        # Shielded: one item that runs out of time must not take the value from the others.
        value: T = await asyncio.shield(made)
        return value


class ContextFactory:
    """Makes the contexts of items, which use the given functions to ask other services, compute and fetch."""

    def __init__(self, ask: Asks, compute: Computes, fetch: Fetches) -> None:
        self._ask = ask
        self._compute = compute
        self._fetch = fetch

    def of_chunk(self, origin: Origin) -> Callable[[int, Post, str], Context]:
        """Return the factory of the contexts of a chunk's items."""
        shared = SharedValues()

        def make(position: int, post: Post, payload_text: str) -> Context:
            def send(message: Command, message_id: UUID, *, is_bulk: bool = False) -> None:
                # Serialized here, so that a command that cannot be serialized fails its item only.
                post(command(message, message_id=message_id, tenant=origin.owner_id, is_bulk=is_bulk))

            return Context(
                batch_id=origin.batch_id,
                position=position,
                owner_id=origin.owner_id,
                attempt=origin.attempt,
                accepted_at=origin.accepted_at,
                payload_text=payload_text,
                ask=self._ask,
                compute=self._compute,
                fetch=self._fetch,
                share=shared.share,
                send=send,
            )

        return make
