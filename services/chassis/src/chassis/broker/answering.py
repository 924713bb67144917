"""The answering side of requests: a service's `.rpc` queue and its table of handlers."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pydantic import BaseModel, ValidationError

from chassis import exemplars, logging, metrics, redaction, shares, spans, tracing
from chassis.broker.envelope import Outgoing, text
from chassis.broker.publisher import Publisher
from chassis.broker.rabbitmq import Link, cancel_consumer
from chassis.broker.topology import bind_where_allowed, declare_rpc_queue
from chassis.deadlines import Deadline
from chassis.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotBegun,
    Overloaded,
    ServiceError,
    TooManyAtOnce,
    Unavailable,
)
from chassis.turns import OwnerTurns
from contracts import headers as names
from contracts.message import Request
from contracts.topology import REPLIES, Queue

log = logging.get(__name__)

Answer = Callable[[Any, Deadline], Awaitable[BaseModel | bytes]]

MOST_AT_WORK = 256
# As many as the connections to the database that an owner may have when no other one needs any.
MOST_OF_OWNER = 5
MOST_WAITING_OF_OWNER = 512
MOST_IN_FLIGHT = 2048
_DEFAULT_DEADLINE_S = 30.0
# Of the time of a request: its caller hears in time what it waits for, and not that nobody has answered.
_SHARE_FOR_TURN = 0.5
_LAST_WORDS_S = 1


class RpcServer:
    """Answers the requests of one queue: a limited number at once, and fewer of one owner.

    Further ones wait, and owners take turns: those that wait for others of their owner for half of their
    time, then they are refused with `NotBegun`; the rest until their deadline. Beyond `most_in_flight` they
    are refused, and beyond its share of these an owner's. A request without an owner counts in no owner's
    share.
    """

    def __init__(
        self,
        queue: Queue,
        handlers: Mapping[type[Request], Answer],
        *,
        publisher: Publisher,
        most_in_flight: int = MOST_IN_FLIGHT,
    ) -> None:
        self._queue = queue
        self._handlers = {request.message_type: (request, answer) for request, answer in handlers.items()}
        self._publisher = publisher
        self._most_in_flight = most_in_flight
        self._turns = OwnerTurns(
            most=MOST_AT_WORK, of_owner=MOST_OF_OWNER, most_waiting=MOST_WAITING_OF_OWNER
        )
        metrics.RPC_WAITING.set_function(lambda: self._turns.waiting)
        self._numbers = itertools.count()
        self._busy = 0
        self._running: set[asyncio.Timeout] = set()
        self._channel: Channel | None = None
        self._tag: str | None = None
        self._stopping = False
        self._reason: str | None = "not answering yet"

    async def attach(self, link: Link) -> None:
        """Start answering over a new connection."""
        if self._stopping:
            return
        channel = await link.channel(confirms=False)
        await declare_rpc_queue(channel, self._queue)
        await bind_where_allowed(link, self._queue.shared_bindings)
        channel.on_consumer_cancel_callbacks.add(lambda _: link.interrupt())
        started = await channel.basic_consume(self._queue.name, self.take, no_ack=True)
        self._channel, self._tag = channel, started.consumer_tag
        self._reason = None

    @property
    def in_flight(self) -> int:
        """The number of requests that were taken and are not answered yet."""
        return self._busy

    def lost(self) -> None:
        """Forget the connection, which is gone."""
        self._channel = self._tag = None
        self._reason = "lost the connection"

    def check(self) -> str | None:
        """Return the reason why no request is answered, for readiness; None when all is well."""
        return self._reason

    async def drain(self, deadline: Deadline) -> None:
        """Take no more requests and finish the running ones; at the deadline, answer them with `Unavailable`.

        The broker no longer has these requests: a caller without an answer would wait until its deadline.
        """
        self._stopping, self._reason = True, "stopping"
        tag, self._tag = self._tag, None
        await cancel_consumer(self._channel, tag)
        await self._wait_idle(deadline)
        now = asyncio.get_running_loop().time()
        for timeout in self._running:
            if not timeout.expired():
                timeout.reschedule(now)
        await self._wait_idle(Deadline.after(_LAST_WORDS_S))

    async def _wait_idle(self, deadline: Deadline) -> None:
        while self._busy and deadline.remaining_s():
            await asyncio.sleep(0.02)

    async def take(self, message: DeliveredMessage) -> None:
        """Answer one request as the broker delivers it; an error becomes the answer."""
        self._busy += 1
        try:
            properties = message.header.properties
            headers = properties.headers or {}
            trace = tracing.begin(text(headers, names.TRACEPARENT), text(headers, names.REQUEST_ID))
            message_type = properties.message_type or ""
            started = time.perf_counter()
            with spans.span(f"answer {message_type}", "server"):
                status, body, outcome = await self._answer(message_type, message.body, headers)
            known = message_type if message_type in self._handlers else "unknown"
            metrics.RPC_SERVED.labels(known, outcome).inc()
            elapsed_s = time.perf_counter() - started
            metrics.RPC_SERVED_SECONDS.labels(known).observe(elapsed_s, exemplars.of_trace(trace))
            if properties.reply_to:
                reply = Outgoing(
                    exchange=REPLIES,
                    routing_key=properties.reply_to,
                    body=body,
                    message_type="reply",
                    message_id=properties.correlation_id or "",
                    headers={names.REPLY_STATUS: status},
                    persistent=False,
                    correlation_id=properties.correlation_id,
                )
                await self._publisher.send(reply)
        except Unavailable as error:
            # The caller notices by its own connection, or at its deadline.
            log.debug("reply not sent", reason=error.detail)
        finally:
            self._busy -= 1

    async def _answer(
        self, message_type: str, body: bytes, headers: Mapping[str, Any]
    ) -> tuple[str, bytes, str]:
        try:
            answer = await self._call(message_type, body, headers)
            if isinstance(answer, bytes):
                # Already JSON: stored JSON is passed on without being parsed.
                return names.REPLY_OK, answer, "ok"
            # Serialized here, because a stored value may be one that JSON cannot express.
            return names.REPLY_OK, answer.model_dump_json(by_alias=True).encode(), "ok"
        except ServiceError as error:
            return _refused(error)
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                raise
            log.error("request failed", type=message_type, exc_info=error)
            return _refused(ServiceError("The service failed; the log has the request id."))

    async def _call(self, message_type: str, body: bytes, headers: Mapping[str, Any]) -> BaseModel | bytes:
        found = self._handlers.get(message_type)
        if found is None:
            log.warning("unknown request type; is a rolling upgrade in progress?", type=message_type)
            raise Unavailable(
                f"This replica does not know requests of type {message_type!r:.200}; repeat the request:"
                " during a rolling upgrade another replica may know it.",
                retry_after_s=2,
            )
        owner_id = text(headers, names.SHARE) or ""
        # A gateway stops counting a request when its caller gives up, so its limits do not bound these.
        own = self._turns.held_by(owner_id)
        if not shares.has_room(own, held=self._busy - 1, most=self._most_in_flight):
            refusal = TooManyAtOnce if own else Overloaded
            raise refusal("The service is busy with too many requests; try again.", retry_after_s=1)
        request_type, answer = found
        try:
            request = request_type.model_validate_json(body)
        except ValidationError as error:
            raise InvalidInput(f"{message_type}: {redaction.safe_message(error)}"[:500]) from error
        shares.current.set(owner_id)
        share = owner_id or f"#{next(self._numbers)}"
        at = headers.get(names.DEADLINE)
        deadline = Deadline.from_epoch_ms(at) if isinstance(at, int) else Deadline.after(_DEFAULT_DEADLINE_S)
        try:
            async with asyncio.timeout(deadline.remaining_s()) as running, AsyncExitStack() as stack:
                self._running.add(running)
                stack.callback(self._running.discard, running)
                await self._take_turn(share, deadline)
                stack.callback(self._turns.give_back, share)
                return await answer(request, deadline)
        except TimeoutError as error:
            if self._stopping and deadline.remaining_s():
                raise Unavailable("The service is stopping; repeat the request.", retry_after_s=1) from error
            raise DeadlineExceeded("The service did not answer before the caller's deadline.") from error

    async def _take_turn(self, share: str, deadline: Deadline) -> None:
        try:
            async with asyncio.timeout(_SHARE_FOR_TURN * deadline.remaining_s()):
                await self._turns.take(share)
        except TimeoutError:
            if self._turns.taken_by(share):
                # No failure of the service, and not to be counted as one.
                raise NotBegun(
                    "Your other requests took the time of this one; send fewer at once.", retry_after_s=1
                ) from None
            # All turns are taken by other owners.
            await self._turns.take(share)


def _refused(error: ServiceError) -> tuple[str, bytes, str]:
    status = names.REPLY_NOT_BEGUN if isinstance(error, NotBegun) else names.REPLY_FAILED
    return status, error.failure().model_dump_json().encode(), error.code
