"""Serving declared endpoints: from an ASGI request to the handler's typed values, and back.

Quart's `asgi_http_class` decides how a request is served. Here that happens in the task that the server
created, without the framework's request and response objects, which cost more than the rest of a short
answer. Quart still routes, opens and closes the application, and serves the WebSockets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    MutableMapping,
)
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from pydantic import TypeAdapter
from quart import Quart
from werkzeug.routing import MapAdapter

from chassis import logging, shares
from chassis.deadlines import Deadline
from chassis.errors import DeadlineExceeded, Overloaded, ServiceError
from chassis.http1.admission import mark_authenticated
from chassis.loop_turns import LoopTurns
from gateway.http import conditions, problems, reading, replies, strict_json
from gateway.http.bodies import LARGE_BYTES, LIGHT_BYTES, SMALL_BYTES, BodyRooms
from gateway.http.byte_room import MOST_FOR_ROOM_S
from gateway.http.calls import Call, IncomingRequest, RawBody
from gateway.http.endpoints import Endpoint, Idempotency
from gateway.http.permitted import Renew, always_valid, while_permitted
from gateway.http.principal import Principal
from gateway.http.rates import Charge, charge_nothing
from gateway.http.readers import Send
from gateway.http.replies import JSON, HttpReply
from gateway.http.routing import Routes
from gateway.http.sending import Sending
from gateway.http.shared_bytes import SharedBytes
from gateway.http.stepping import Finished, begin

log = logging.get(__name__)

ROUTE = "tickwire.route"
# Set when a deadline has passed that the caller made shorter than the default.
HURRIED = "tickwire.hurried"
# Set when a limit has refused the request, here or in the service that was asked.
REFUSED = "tickwire.refused"
# The codes of the errors that say so: the others with 5xx are failures.
_OF_LIMITS = {Overloaded.code, "provider-quota"}
# The share of the caller's time that is reserved for an answer without the reply that was waited for.
_SHARE_FOR_THE_ANSWER = 0.1
_MOST_FOR_THE_ANSWER_S = 0.25
# How long the body of a request without a key may take: it holds one of few connections meanwhile.
PUBLIC_BODY_S = 2.0
# In the units of `LoopTurns`: of what a request does up to its first wait.
_WEIGHT_OF_A_REQUEST = 20
# An exception and a problem document take longer than most answers from memory.
_WEIGHT_OF_A_REFUSAL = 30
# Most answers are there sooner: a task that watches the client of each of them would cost more than a query.
UNWATCHED_S = 0.05
# An upload may continue for as long as its parts keep arriving, unless its caller limits its time.
_UNLIMITED = Deadline(float("inf"))

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
# Takes a credential and the client address.
Authenticate = Callable[[str | None, str | None], Awaitable[Principal]]
Effect = Callable[[], Coroutine[Any, Any, HttpReply]]
Once = Callable[[Call, Endpoint, Effect], Coroutine[Any, Any, HttpReply]]

NOBODY = Principal(0, "", "", "", frozenset())


@dataclass(frozen=True)
class Bound:
    """A declared endpoint with everything that can be prepared before the first request."""

    endpoint: Endpoint
    path: dict[str, TypeAdapter[Any]] = field(init=False)
    body: TypeAdapter[Any] | None = field(init=False)

    def __post_init__(self) -> None:
        path = {
            name: adapter
            for name, (converter, adapter) in self.endpoint.path_parameters.items()
            if converter is None
        }
        object.__setattr__(self, "path", path)
        document = self.endpoint.body
        object.__setattr__(self, "body", None if document is None else TypeAdapter(document))

    @cached_property
    def allowed_types(self) -> tuple[str, ...]:
        """The media types that the body may have."""
        document = () if self.body is None else (JSON,)
        upload = () if self.endpoint.upload is None else (self.endpoint.upload,)
        return (*document, *upload, *self.endpoint.takes)


class Server:
    """Serves declared endpoints to callers with the required scopes.

    `once` runs an effect in its transaction and makes repetitions harmless; `charge` counts a request in the
    limits of its caller; `renew` looks up the rights of one whose upload takes long; `routes` matches paths
    to rules; `timeout_s` is the default time-out of a request. Bodies and answers take of the bytes that are
    `shared`.
    """

    def __init__(
        self,
        authenticate: Authenticate,
        once: Once,
        *,
        routes: MapAdapter,
        timeout_s: float,
        upload_limit: int,
        authenticate_stream: Authenticate | None = None,
        renew: Renew = always_valid,
        charge: Charge = charge_nothing,
        shared: SharedBytes | None = None,
        turns: LoopTurns | None = None,
    ) -> None:
        self._authenticate = authenticate
        self._authenticate_stream = authenticate_stream or authenticate
        self._renew = renew
        self._charge = charge
        self._once = once
        self._routes = Routes(routes)
        self._timeout_s = timeout_s
        self._upload_limit = upload_limit
        self._turns = turns or LoopTurns()
        self._rooms = BodyRooms(shared)
        self.sending = Sending(shared=shared, turns=self._turns)
        self._bound: dict[str, Bound] = {}
        self.endpoints: list[Endpoint] = []

    def register(self, app: Quart, endpoints: Iterable[Endpoint]) -> None:
        """Serve `endpoints` as routes of `app`."""
        for endpoint in endpoints:
            rule = f"{endpoint.method} {endpoint.path}"
            app.add_url_rule(endpoint.path, rule, methods=[endpoint.method])
            self._bound[rule] = Bound(endpoint)
            self.endpoints.append(endpoint)

    async def reply(self, request: IncomingRequest) -> HttpReply:
        """Return the answer to a request; every error becomes a problem document."""
        try:
            if request.scope["method"] == "OPTIONS":
                allowed = self._routes.methods_of(request.scope)
                return HttpReply(None, 204, headers={"allow": ", ".join(sorted(allowed))})
            rule, found = self._routes.match(request.scope)
            return await self._call(self._bound[rule], request, found)
        except ServiceError as error:
            self._turns.charge(_WEIGHT_OF_A_REFUSAL)
            _note_refusal(request.scope, error)
            if error.status == 504 and reading.is_hurried(request, self._timeout_s):
                request.scope[HURRIED] = True
            return problems.reply(error)
        except Exception as error:
            log.error("request failed", path=request.scope["path"], exc_info=error)
            return problems.reply(
                ServiceError("The gateway failed; its log has the details under the id of this request.")
            )

    async def _call(self, bound: Bound, request: IncomingRequest, found: dict[str, Any]) -> HttpReply:
        endpoint, arrived_at = bound.endpoint, time.monotonic()
        request.scope[ROUTE] = endpoint.template
        # Authentication comes first: no part of the request is parsed or stored for a caller without a key.
        principal = NOBODY
        if not endpoint.is_public:
            identify = self._authenticate_stream if endpoint.is_stream else self._authenticate
            principal = await identify(reading.credential(endpoint, request), reading.address(request))
            mark_authenticated(request.scope, principal.owner_id)
        shares.current.set(principal.owner_id if principal is not NOBODY else "")
        # An owner may have thousands of connections, each with a request at the same time.
        who = reading.address(request) or "" if principal is NOBODY else principal.owner_id
        await self._turns.take(who, weight=_WEIGHT_OF_A_REQUEST)
        if endpoint.scope is not None:
            principal.require(endpoint.scope)
        if not endpoint.is_public:
            request.limit_headers = await self._charge(principal, endpoint.rate, 1)
        key = reading.idempotency_key(endpoint, request)
        query = reading.query(endpoint, request)
        if endpoint.dry_run_scope is not None and query.dry_run:
            # Before a recorded answer is looked for: the key that repeats a request may have fewer rights.
            principal.require(endpoint.dry_run_scope)
        arguments = reading.path(bound.path, found) if found else {}
        if query is not None:
            arguments["query"] = query
        until = reading.deadline(request, self._timeout_s, since=arrived_at)
        # Replies that the handler waits for have a slightly earlier deadline, so that it can answer
        # without them.
        margin_s = min(_MOST_FOR_THE_ANSWER_S, until.remaining_s() * _SHARE_FOR_THE_ANSWER)
        call = Call(
            principal,
            Deadline(until.at - margin_s),
            reading.media_type(endpoint, request, query),
            if_match=conditions.if_match(endpoint, request),
            last_event_id=request.header(b"last-event-id"),
            prefers_wait=reading.prefers_wait(request),
        )
        reply = await self._reply_to(bound, request, call, key, arguments, until)
        if reply.later is not None:
            # Nothing keeps the body any more, for which there is no room meanwhile.
            arguments.clear()
            call.document = b"null"
            reply = await reply.later()
        return self._finished(endpoint, request, reply, principal)

    async def _reply_to(
        self,
        bound: Bound,
        request: IncomingRequest,
        call: Call,
        key: str | None,
        arguments: dict[str, Any],
        until: Deadline,
    ) -> HttpReply:
        """Read the body as the route declares it, and run the handler."""
        endpoint = bound.endpoint
        arrives_by = until
        if endpoint.is_public:
            arrives_by = Deadline(min(until.at, time.monotonic() + PUBLIC_BODY_S))
        if not endpoint.takes_body:
            await reading.require_no_body(request, arrives_by)
            call.idempotency_key = reading.key_of(request, key, b"")
            return await self._run(endpoint, call, arguments, until)
        given = reading.require_media_type(request, *bound.allowed_types)
        reading.require_coding(request, *(endpoint.codings if given == endpoint.upload else ()))
        if given == endpoint.upload:
            call.idempotency_key = reading.key_of(request, key, b"")
            if not reading.limits_time(request):
                call.deadline = until = _UNLIMITED
            upload = reading.upload(request, endpoint.upload_limit or self._upload_limit)
            upload.parts = while_permitted(upload.parts, call.principal, endpoint.scope, self._renew)
            arguments["body"] = upload
            return await self._run(endpoint, call, arguments, until)
        size = reading.largest_size(request)
        room = self._rooms.large if size > LARGE_BYTES else self._rooms.smaller
        owner_id, within_s = call.principal.owner_id, min(until.remaining_s(), MOST_FOR_ROOM_S)
        # Until the handler returns: it keeps the document in memory while it waits.
        async with room.hold(owner_id, size, within_s=within_s) if size > SMALL_BYTES else nullcontext():
            content = await reading.read_all(request, arrives_by)
            call.idempotency_key = reading.key_of(request, key, content)
            if given in endpoint.takes:
                arguments["body"] = RawBody(content, given)
                return await self._run(endpoint, call, arguments, until)
            # One that takes more than the share would have room only while nobody else holds any.
            weight = min(strict_json.weigh(content), self._rooms.heaviest_document)
            within_s = min(until.remaining_s(), MOST_FOR_ROOM_S)
            async with (
                self._rooms.documents.hold(owner_id, weight, within_s=within_s)
                if weight > LIGHT_BYTES
                else nullcontext()
            ):
                assert bound.body is not None
                arguments["body"] = await reading.json_body(bound.body, content, arrives_by)
                call.document = content
                await self._charge_rest(endpoint, request, call, arguments["body"])
                return await self._run(endpoint, call, arguments, until)

    async def _charge_rest(self, endpoint: Endpoint, request: IncomingRequest, call: Call, body: Any) -> None:
        """Count a request whose body is worth several by what it is worth; one was counted before it came."""
        rest = 0 if endpoint.cost is None else endpoint.cost(body) - 1
        if rest > 0:
            # The headers of a refusal are those of its error.
            request.limit_headers = None
            request.limit_headers = await self._charge(call.principal, endpoint.rate, rest)

    async def _run(
        self, endpoint: Endpoint, call: Call, arguments: dict[str, Any], until: Deadline
    ) -> HttpReply:
        async def handle() -> HttpReply:
            return replies.of(await endpoint.handler(call, **arguments), is_tagged=endpoint.is_tagged)

        happens_once = endpoint.idempotency is not Idempotency.NONE
        effect = partial(self._once, call, endpoint, handle) if happens_once else handle
        if until is _UNLIMITED:
            return await effect()
        try:
            rest = begin(effect())
        except Finished as finished:
            reply: HttpReply = finished.value
            return reply
        try:
            async with asyncio.timeout(until.remaining_s()) as waiting:
                return await rest
        except TimeoutError as error:
            if not waiting.expired():
                raise
            detail = (
                "The response was not ready within the time that the request allows; allow more time."
                if endpoint.idempotency is Idempotency.NONE
                else "The request did not finish in time; repeat it with the same Idempotency-Key to learn "
                "its outcome."
            )
            raise DeadlineExceeded(detail, retry_after_s=2) from error

    def _finished(
        self, endpoint: Endpoint, request: IncomingRequest, reply: HttpReply, principal: Principal
    ) -> HttpReply:
        headers, status, body = dict(reply.headers), reply.status or endpoint.status, reply.body
        # Only here: a recorded answer is whole, and the key that repeats a request may have fewer rights.
        answer = endpoint.answers.get(status)
        if answer is not None and answer.excerpt is not None and not principal.may(answer.excerpt.scope):
            assert isinstance(body, bytes), "an excerpt is made of one JSON object"
            body = answer.excerpt.of(body)
            reply = reply if answer.excerpt.has_location else replace(reply, location=None)
        if len(endpoint.media_types) > 1:
            headers["vary"] = "accept"
        if reply.is_repeat:
            headers["idempotent-replayed"] = "true"
        if reply.location:
            headers["location"] = reply.location
        cache = reply.cache or endpoint.cache
        if endpoint.method == "GET" and b"if-match" in request.headers:
            conditions.require_current(request, reply.etag)
        is_known = (
            reply.etag is not None and endpoint.method == "GET" and conditions.knows(request, reply.etag)
        )
        return HttpReply(
            None if is_known else body,
            304 if is_known else status,
            reply.media_type,
            etag=reply.etag,
            cache=cache,
            headers=headers,
        )


class EndpointConnection:
    """Quart's seam for HTTP: one request, served in the task of the server."""

    def __init__(self, app: Any, scope: Scope) -> None:
        self._server: Server = app.server
        self._scope = scope

    async def __call__(self, receive: Receive, send: Send) -> None:
        """Serve the request; cancel it if the client disconnects."""
        request = IncomingRequest(self._scope, receive)
        try:
            rest = begin(self._serve(request, send))
        except Finished:
            return
        task = asyncio.current_task()
        assert task is not None

        async def watch() -> None:
            await request.is_complete.wait()
            while (await request.receive())["type"] != "http.disconnect":
                continue
            request.is_abandoned = True
            task.cancel()

        watchers: list[asyncio.Task[None]] = []
        starting = asyncio.get_running_loop().call_later(
            UNWATCHED_S, lambda: watchers.append(asyncio.create_task(watch()))
        )
        try:
            await rest
        except asyncio.CancelledError:
            if not request.is_abandoned or task.uncancel() > 0:
                raise
        finally:
            starting.cancel()
            for watcher in watchers:
                watcher.cancel()

    async def _serve(self, request: IncomingRequest, send: Send) -> None:
        reply = await self._server.reply(request)
        owner_id, is_head = shares.current.get(), request.scope["method"] == "HEAD"
        await self._server.sending.send(
            reply,
            send,
            owner_id=owner_id,
            is_head=is_head,
            limit_headers=request.limit_headers,
            on_refusal=partial(_note_refusal, self._scope),
        )


def _note_refusal(scope: Scope, error: ServiceError) -> None:
    if error.code in _OF_LIMITS:
        scope[REFUSED] = True
