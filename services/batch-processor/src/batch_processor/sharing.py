"""What operations are given to work with: questions to other services, processes, a memory per chunk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from pydantic import BaseModel

from batch_processor.chunks import Send
from batch_processor.operation import Computes, Context
from batch_processor.repository import Claim
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from contracts.message import Request

R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")


class Memory:
    """Values that the items of one chunk share; each is made once, also when many ask at a time."""

    def __init__(self) -> None:
        self._made: dict[Hashable, asyncio.Future[Any]] = {}

    async def share(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """The value of `key`. An error reaches all who wait, and whoever asks later makes it anew."""
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = asyncio.ensure_future(make())
            made.add_done_callback(lambda done: self._forget(key, done))
        # Shielded: one item that runs out of time must not take the value from the others.
        value: T = await asyncio.shield(made)
        return value

    def _forget(self, key: Hashable, done: asyncio.Future[Any]) -> None:
        if done.cancelled() or done.exception() is not None:
            self._made.pop(key, None)


class Tools:
    """Makes the contexts of items."""

    def __init__(self, rpc: RpcClient, compute: Computes) -> None:
        self._rpc = rpc
        self._compute = compute

    def contexts(self, claim: Claim) -> Callable[[int, Send], Context]:
        """How the contexts of a chunk's items are made."""
        memory = Memory()

        def make(position: int, send: Send) -> Context:
            return Context(
                batch_id=claim.batch_id,
                position=position,
                owner_id=claim.owner_id,
                attempt=claim.attempt,
                accepted_at=claim.accepted_at,
                ask=self._ask,
                compute=self._compute,
                share=memory.share,
                send=send,
            )

        return make

    async def _ask(self, request: Request, reply: type[R], *, timeout_s: float) -> R:
        return await self._rpc.call(request, reply, Deadline.after(timeout_s))
