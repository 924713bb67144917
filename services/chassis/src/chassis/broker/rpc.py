"""Requests and replies: at most once, with a deadline, and an immediate error when no service answers."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TypeVar

from aiormq.abc import DeliveredMessage
from pydantic import BaseModel

from chassis import exemplars, logging, metrics, shares, spans, tracing
from chassis.broker.breaker import Breaker
from chassis.broker.envelope import Outgoing, stamp
from chassis.broker.publisher import Publisher
from chassis.broker.rabbitmq import Link
from chassis.deadlines import Deadline
from chassis.errors import (
    BrokerUnavailable,
    DeadlineExceeded,
    NotBegun,
    Overloaded,
    RemoteFailure,
    ServiceError,
    TooManyAtOnce,
    Unavailable,
)
from chassis.turns import OwnerTurns
from contracts import headers as names
from contracts.message import Failure, Request
from contracts.topology import ANSWERING, REPLIES, RPC, rpc_queue

log = logging.get(__name__)

R = TypeVar("R", bound=BaseModel)

MOST_IN_FLIGHT = 512
# One divided by the part of them that an owner may have even when only the reserve is left, and how many
# times what it leaves free an owner may have.
FEW = 128
WEIGHT = 3
# So many of an owner are sent to one service at a time: one that it works at, and one that is under way. All
# replies come over one connection, in order, and may have 1 MiB each: with more, the small reply to another
# owner would wait behind them, and processors that are busy would answer no more of them in a second.
MOST_SENT_OF_OWNER = 2
# A call that was given less says nothing about the service: its caller was in a hurry.
LEAST_WAIT_S = 1.0
_NOT_BEGUN = "not-begun"


@dataclass
class _Target:
    """The state of one service: calls in flight, and whether it is answering."""

    service: str
    in_flight: int = 0
    answered_at: float = 0.0
    of_owner: Counter[str] = field(default_factory=Counter)
    turns: OwnerTurns = field(
        default_factory=lambda: OwnerTurns(
            most=sys.maxsize, of_owner=MOST_SENT_OF_OWNER, most_waiting=MOST_IN_FLIGHT
        )
    )
    breaker: Breaker = field(default_factory=Breaker)

    def begin(self, share: str, most: int) -> None:
        """Count a call that begins, in the `share` of its owner if it has one.

        Raise `TooManyAtOnce` at the owner's part of `most` calls, `Overloaded` at `most`, and `Unavailable`
        while the breaker is open for the owner.
        """
        own, few = self.of_owner[share] if share else 0, max(1, most // FEW)
        has_room = shares.has_room(own, held=self.in_flight, most=most, few=few, weight=WEIGHT)
        if own >= few and not has_room:
            raise TooManyAtOnce(
                f"{own} of your requests are waiting for {self.service}, the most allowed while others may"
                " need it, too; wait for some of them to end.",
                retry_after_s=1,
            )
        if not has_room:
            raise Overloaded(
                f"Too many requests are waiting for {self.service}; try again in a moment.", retry_after_s=1
            )
        if not self.breaker.allows(share):
            raise Unavailable(f"{self.service} is not responding; try again later.", retry_after_s=2)
        self.in_flight += 1
        self.of_owner[share] += 1
        metrics.RPC_IN_FLIGHT.labels(self.service).set(self.in_flight)

    def finish(self, share: str, outcome: str, *, began_at: float, given_s: float) -> None:
        """Count a call that ends.

        A call without an answer in time is a failure of the service only if it was given a while, in which
        the service answered no other call either. Else an owner whose requests wait for each other, or that
        allows them no time, would make the service unavailable for others.
        """
        self.in_flight -= 1
        self.of_owner[share] -= 1
        if not self.of_owner[share]:
            del self.of_owner[share]
        if outcome == DeadlineExceeded.code:
            if given_s >= LEAST_WAIT_S and self.answered_at < began_at:
                self.breaker.failed(share)
        elif outcome not in ("cancelled", _NOT_BEGUN):
            self.answered_at = time.perf_counter()
            self.breaker.succeeded()
        metrics.RPC_BREAKER_OPEN.labels(self.service).set(self.breaker.is_open)
        metrics.RPC_IN_FLIGHT.labels(self.service).set(self.in_flight)


class RpcClient:
    """Sends requests to other services. At most `max_in_flight` wait for one service (its bulkhead).

    A request is for the owner in `shares.current`, who may have a part of them, of which only some are sent
    before others are answered.
    """

    def __init__(self, publisher: Publisher, *, max_in_flight: int = MOST_IN_FLIGHT) -> None:
        self._publisher = publisher
        self._max_in_flight = max_in_flight
        self._pending: dict[tuple[str, str], asyncio.Future[tuple[str, bytes]]] = {}
        self._targets: dict[str, _Target] = {}
        self._numbers = itertools.count(1)
        self._addresses: dict[str, str] = {}
        self._publishing: set[asyncio.Task[None]] = set()
        publisher.on_unusable = self._fail_pending

    async def attach(self, link: Link) -> None:
        """Open the reply queue over a new connection, with an address for each service that may be asked.

        A service learns its own address only. With that of another one, it could bind a queue to it and hear
        the replies of that service, or answer in its place.
        """
        channel = await link.channel(confirms=False)
        declared = await channel.queue_declare("", exclusive=True, auto_delete=True)
        queue = declared.queue or ""
        addresses = {service: f"{service}.{secrets.token_hex(16)}" for service in ANSWERING}
        for address in addresses.values():
            # Not through the default exchange, which leads to every queue: only `admin` may write to that.
            await channel.queue_bind(queue, REPLIES, routing_key=address)
        channel.on_consumer_cancel_callbacks.add(lambda _: link.interrupt())

        async def take(message: DeliveredMessage) -> None:
            properties = message.header.properties
            future = self._pending.get((message.routing_key or "", properties.correlation_id or ""))
            if future is not None and not future.done():
                status = (properties.headers or {}).get(names.REPLY_STATUS, names.REPLY_OK)
                future.set_result((str(status), message.body))

        await channel.basic_consume(queue, take, no_ack=True)
        self._addresses = addresses

    @property
    def waiting(self) -> int:
        """The number of requests that wait for their turn or their reply."""
        return sum(target.in_flight for target in self._targets.values())

    def lost(self) -> None:
        """Fail the waiting calls: the consuming connection is gone, and the reply queue with it."""
        self._addresses = {}
        self._fail_pending(
            BrokerUnavailable(
                "The connection to the message broker was lost before the answer arrived.", retry_after_s=2
            )
        )

    def _fail_pending(self, error: BrokerUnavailable) -> None:
        # Every pending request fails now, not at its deadline.
        for future in list(self._pending.values()):
            _fail(future, error)

    async def call(
        self, request: Request, reply: type[R], deadline: Deadline, *, service: str | None = None
    ) -> R:
        """Send a request and return the answer as `reply`."""
        return reply.model_validate_json(await self.ask(request, deadline, service=service))

    async def ask(self, request: Request, deadline: Deadline, *, service: str | None = None) -> bytes:
        """Send a request and return the answer's JSON unparsed; `service` is for requests that name none.

        Raise `RemoteFailure` with the service's own error, `Unavailable` when the service or the broker is
        down, `Overloaded` or `TooManyAtOnce` when too many requests wait already, `NotBegun` when others of
        the owner took its time, here or at the service, `DeadlineExceeded` when no answer came.
        """
        body = request.model_dump_json(exclude_none=True).encode()
        return await self.forward(request.message_type, body, deadline, service=service or request.service)

    async def forward(self, message_type: str, body: bytes, deadline: Deadline, *, service: str) -> bytes:
        """Do the same as `ask` with a serialized request, for another process."""
        target = self._targets.setdefault(service, _Target(service))
        share = shares.current.get()
        target.begin(share, self._max_in_flight)
        started, given_s = time.perf_counter(), deadline.remaining_s()
        outcome = "cancelled"
        try:
            with spans.span(f"ask {message_type}", "client", {"tickwire.service": service}):
                answer = await self._exchange(target, message_type, body, deadline)
            outcome = "ok"
            return answer
        except ServiceError as error:
            outcome = _NOT_BEGUN if isinstance(error, NotBegun) else error.code
            raise
        finally:
            target.finish(share, outcome, began_at=started, given_s=given_s)
            metrics.RPC_CALLS.labels(service, message_type, outcome).inc()
            histogram = metrics.RPC_CALL_SECONDS.labels(service, message_type)
            histogram.observe(time.perf_counter() - started, exemplars.of_trace(tracing.current()))

    async def _exchange(self, target: _Target, message_type: str, body: bytes, deadline: Deadline) -> bytes:
        remaining_s = deadline.remaining_s()
        if remaining_s <= 0:
            raise DeadlineExceeded("The deadline passed before the request could be sent.")
        number, began_at, is_sent = str(next(self._numbers)), time.perf_counter(), False
        address = ""
        share = shares.current.get() or f"#{number}"
        future: asyncio.Future[tuple[str, bytes]] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(remaining_s), target.turns.turn(share):
                if not (address := self._addresses.get(target.service, "")):
                    raise BrokerUnavailable("The message broker cannot be reached.", retry_after_s=2)
                self._pending[address, number] = future
                left_s = deadline.remaining_s()
                message = Outgoing(
                    exchange=RPC,
                    routing_key=rpc_queue(target.service),
                    body=body,
                    message_type=message_type,
                    message_id=number,
                    headers=stamp(deadline=deadline),
                    persistent=False,
                    correlation_id=number,
                    reply_to=address,
                    # The broker drops a request that nobody waits for any more.
                    expiration_ms=max(1, int(left_s * 1000)),
                )
                self._publish(message, future, left_s)
                is_sent = True
                status, answer = await future
        except TimeoutError:
            if not is_sent and target.answered_at >= began_at:
                # An owner must not be able to spend the error budget by what its requests do to each other.
                raise NotBegun(
                    f"Your other requests to {target.service} took the time of this one; send fewer at once.",
                    retry_after_s=1,
                ) from None
            raise DeadlineExceeded(f"{target.service} did not answer in {remaining_s:.1f} s.") from None
        finally:
            self._pending.pop((address, number), None)
            # The traceback of its error holds this frame: together they would stay until a collection.
            del future
        if status == names.REPLY_OK:
            return answer
        failure = Failure.model_validate_json(answer)
        if status == names.REPLY_NOT_BEGUN:
            raise NotBegun(failure.detail, retry_after_s=failure.retry_after_s)
        raise RemoteFailure(failure)

    def _publish(
        self, message: Outgoing, future: asyncio.Future[tuple[str, bytes]], timeout_s: float
    ) -> None:
        """Publish while waiting for the reply, which may arrive before the confirm."""

        async def publish() -> None:
            try:
                await self._publisher.publish(message, timeout_s=timeout_s)
            except ServiceError as error:
                # For example returned, because the service's queue was deleted with its last consumer.
                _fail(future, error)

        task = asyncio.create_task(publish())
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)


def _fail(future: asyncio.Future[tuple[str, bytes]], error: ServiceError) -> None:
    if not future.done():
        future.set_exception(error)
