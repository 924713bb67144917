"""The context in which operations run: questions to other services, processes, values of their chunk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel

from batch_processor.chunks import Post
from batch_processor.claims import Claim
from batch_processor.operation import Computes, Context
from chassis.broker.envelope import command
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from contracts.message import Command, Request

R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")


class SharedValues:
    """Values that the items of one chunk share; each is made once, also when many ask at a time."""

    def __init__(self) -> None:
        self._made: dict[Hashable, asyncio.Future[Any]] = {}

    async def share(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """Return the value of `key`. An error reaches all who wait, and whoever asks later makes it anew."""
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = asyncio.ensure_future(make())
            made.add_done_callback(lambda done: self._forget_failed(key, done))
        # Shielded: one item that runs out of time must not take the value from the others.
        value: T = await asyncio.shield(made)
        return value

    def _forget_failed(self, key: Hashable, done: asyncio.Future[Any]) -> None:
        if done.cancelled() or done.exception() is not None:
            self._made.pop(key, None)


class ContextFactory:
    """Makes the contexts of items."""

    def __init__(self, rpc: RpcClient, compute: Computes) -> None:
        self._rpc = rpc
        self._compute = compute

    def of_chunk(self, claim: Claim) -> Callable[[int, Post], Context]:
        """Return what makes the contexts of a chunk's items."""
        shared = SharedValues()

        def make(position: int, post: Post) -> Context:
            def send(message: Command, message_id: UUID) -> None:
                # Written here, so that a command that cannot be is the failure of its item alone.
                post(command(message, message_id=message_id, tenant=claim.owner_id))

            return Context(
                batch_id=claim.batch_id,
                position=position,
                owner_id=claim.owner_id,
                attempt=claim.attempt,
                accepted_at=claim.accepted_at,
                ask=self._ask,
                compute=self._compute,
                share=shared.share,
                send=send,
            )

        return make

    async def _ask(self, request: Request, reply: type[R], *, timeout_s: float) -> R:
        return await self._rpc.call(request, reply, Deadline.after(timeout_s))
