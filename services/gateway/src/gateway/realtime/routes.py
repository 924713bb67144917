"""The channels as server-sent events, and tokens for browsers that open them: the declared endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

from chassis import logging
from chassis.errors import DatabaseUnavailable, Forbidden, NotFound, Overloaded, ServiceError
from contracts import batches, emails, problems
from contracts.scopes import Scope
from gateway.batches.inputs import BatchView
from gateway.emails.inputs import EmailView
from gateway.http import endpoints as declared
from gateway.http.calls import Call
from gateway.http.endpoints import Endpoint, Idempotency, get, json, post
from gateway.http.problems import invalid
from gateway.http.replies import EVENT_STREAM, HttpReply
from gateway.publishing.publications import Publication
from gateway.realtime.access import Access
from gateway.realtime.channels import Channel, Channels, Joined, channel_of
from gateway.realtime.codes import CommandError
from gateway.realtime.connection_limit import ConnectionLimit
from gateway.realtime.connections import Connections
from gateway.realtime.event_stream import EventStream
from gateway.realtime.inputs import QuoteStreamQuery, StreamQuery, TokenInput, TokenView
from gateway.realtime.news import EmailNews, QuoteNews
from gateway.realtime.tokens import TokenService

log = logging.get(__name__)

# Of the state of a channel, in the units of `LoopTurns`.
_WEIGHT_OF_A_READ = 5
_ENDED: frozenset[str] = batches.FINISHED | emails.FINISHED


class EventStreams:
    """Streams the content of channels to clients without WebSockets."""

    def __init__(self, channels: Channels, connections: Connections, limit: ConnectionLimit) -> None:
        self._channels = channels
        self._connections = connections
        self._limit = limit

    async def follow_batch(self, call: Call, batch_id: UUID, query: StreamQuery) -> HttpReply:  # noqa: ARG002
        """Stream the state of a batch until it has ended."""
        return await self._follow(call, [channel_of(f"batch:{batch_id}")])

    async def follow_task(self, call: Call, task_id: UUID, query: StreamQuery) -> HttpReply:  # noqa: ARG002
        """Stream the state of a task until it has ended."""
        return await self._follow(call, [channel_of(f"task:{task_id}")])

    async def follow_email(self, call: Call, email_id: UUID, query: StreamQuery) -> HttpReply:  # noqa: ARG002
        """Stream the state of a mail until it has ended."""
        return await self._follow(call, [channel_of(f"email:{email_id}")])

    async def stream_quotes(self, call: Call, query: QuoteStreamQuery) -> HttpReply:
        """Stream the quotes of the requested symbols."""
        return await self._follow(call, [channel_of(f"quotes:{symbol}") for symbol in query.symbols])

    async def _follow(self, call: Call, channels: Sequence[Channel]) -> HttpReply:
        principal = call.principal
        self._limit.require_room(principal.owner_id)
        access = Access(principal, channels=principal.channels, expires_at=principal.ends_at)
        kind = channels[0].kind.name

        async def look() -> list[Publication]:
            # Each may wait for a service: two hundred symbols, one after the other, could take minutes.
            joins: list[asyncio.Task[Joined]] = []
            try:
                async with asyncio.TaskGroup() as group:
                    for one in channels:
                        await self._channels.hub.turns.take(principal.owner_id, weight=_WEIGHT_OF_A_READ)
                        joins.append(group.create_task(self._channels.join(access, one, None)))
            except ExceptionGroup as errors:
                # The reads of the others have ended, too: nobody waits for them.
                raise errors.exceptions[0] from None
            return [publication for join in joins for publication in join.result().publications]

        async def look_again() -> list[Publication]:
            try:
                return await look()
            except ServiceError as error:
                # The stream continues with the known state; the next read may succeed.
                log.debug("channel state could not be read", channel=str(channels[0]), reason=error.detail)
                return []

        stream = EventStream(
            access,
            channels,
            look,
            name=kind.removesuffix("s"),
            last_event_id=call.last_event_id,
            look_again=None if kind == "quotes" else look_again,
            is_last=lambda data: kind != "quotes" and data["status"] in _ENDED,
        )
        events = stream.events(self._channels.hub, self._connections, self._limit)
        # Nothing to read, or no place: now that is an error response, later it would be a broken stream.
        await anext(events)
        return HttpReply(events, media_type=EVENT_STREAM, headers={"x-accel-buffering": "no"})


class TokenEndpoint:
    """Creates tokens for browsers."""

    def __init__(self, tokens: TokenService) -> None:
        self._tokens = tokens

    async def create(self, call: Call, body: TokenInput) -> TokenView:
        """Return a new token for the caller's key."""
        try:
            channels = None if body.channels is None else {str(channel_of(text)) for text in body.channels}
        except CommandError as error:
            raise invalid("/channels", error.message) from None
        token, expires_at = self._tokens.issue(
            call.principal, ttl_s=body.ttl_s, scopes=body.scopes, channels=channels
        )
        return TokenView(token=token, expires_at=datetime.fromtimestamp(expires_at, UTC))


def endpoints(streams: EventStreams, tokens: TokenEndpoint) -> Iterator[Endpoint]:
    """Yield the streams of server-sent events and the tokens for them."""
    yield get(
        "/v1/batches/<uuid:batch_id>/events",
        streams.follow_batch,
        name="followBatch",
        summary="Follow a batch until it has ended",
        tag="Batches",
        scope=Scope.BATCHES_READ,
        answers={200: declared.events(item=BatchView)},
        errors=(NotFound, problems.of("batch-not-found"), Overloaded, DatabaseUnavailable),
    )
    yield get(
        "/v1/tasks/<uuid:task_id>/events",
        streams.follow_task,
        name="followTask",
        summary="Follow a task until it has ended",
        tag="Tasks",
        scope=Scope.BATCHES_READ,
        answers={200: declared.events(item=BatchView)},
        errors=(NotFound, problems.of("batch-not-found"), Overloaded, DatabaseUnavailable),
    )
    yield get(
        "/v1/emails/<uuid:email_id>/events",
        streams.follow_email,
        name="followEmail",
        summary="Follow a mail until it has ended",
        tag="E-mail",
        scope=Scope.EMAILS_READ,
        answers={200: declared.events(item=EmailView | EmailNews)},
        errors=(NotFound, Overloaded, DatabaseUnavailable),
    )
    yield get(
        "/v1/stocks/stream",
        streams.stream_quotes,
        name="streamQuotes",
        summary="Stream the quotes of up to 200 symbols",
        tag="Stocks",
        scope=Scope.QUOTES_READ,
        answers={200: declared.events(item=QuoteNews)},
        errors=(NotFound, problems.of("unknown-symbol"), problems.of("invalid-symbol"), Overloaded),
    )
    yield from _tokens(tokens)


def _tokens(tokens: TokenEndpoint) -> Iterator[Endpoint]:
    yield post(
        "/v1/realtime/tokens",
        tokens.create,
        name="createRealtimeToken",
        summary="Create a short-lived token for a browser",
        tag="Realtime",
        scope=None,
        answers={200: json(TokenView)},
        errors=(Forbidden,),
        idempotency=Idempotency.NONE,
        examples={"a token for one channel": {"ttl_s": 60, "channels": ["quotes:AAPL"]}},
    )
