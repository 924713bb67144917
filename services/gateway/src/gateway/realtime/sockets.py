"""The WebSockets `/v1/realtime` and `/ws`, in plain ASGI: from the upgrade to the close."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from typing import Any

import orjson
from uvicorn.protocols.utils import ClientDisconnected

from chassis import logging, metrics
from chassis.errors import NotFound, ServiceError, Unauthenticated
from chassis.http1.admission import mark_authenticated
from chassis.problems import problem, problem_headers
from gateway.errors import UpgradeRequired
from gateway.http import reading
from gateway.http.calls import IncomingRequest
from gateway.http.edge import Receive, Scope, Send
from gateway.http.origins import require_origin
from gateway.http.reading import token
from gateway.http.serving import ROUTE
from gateway.realtime.access import Access
from gateway.realtime.codes import CloseCode
from gateway.realtime.connection_limit import ConnectionLimit
from gateway.realtime.connections import Connections
from gateway.realtime.lobby import LobbySession
from gateway.realtime.session import ClientSession, Realtime
from gateway.realtime.slow_clients import SlowClients, WaitingBytes
from gateway.realtime.wire import EXTENSION, WebSocketWire

log = logging.get(__name__)

_LOBBY = "/ws"
PATHS = ("/v1/realtime", _LOBBY)
_PROTOCOL = "centrifuge-json"
_KEY_PROTOCOL = "tickwire.key."
# In the units of `LoopTurns`: very many may come at once, as after a restart.
_WEIGHT_OF_AN_UPGRADE = 20
_UPGRADE = UpgradeRequired(
    "This path serves WebSockets only: send an upgrade, or use a client library of the protocol.",
    headers={"upgrade": "websocket", "connection": "upgrade"},
)


class Sockets:
    """Serves the WebSockets; refusals are problem documents."""

    def __init__(
        self,
        *,
        realtime: Realtime,
        connections: Connections,
        limit: ConnectionLimit,
        slow_clients: SlowClients,
        origins: Collection[str] = (),
    ) -> None:
        self._realtime = realtime
        self._connections = connections
        self._limit = limit
        self._origins = origins
        self._clients = slow_clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket from its upgrade to its end, or refuse a request that is no upgrade."""
        if scope["type"] == "http":
            scope[ROUTE] = scope["path"]
            await _answer(send, _UPGRADE, "http.response")
            return
        await receive()
        try:
            with ExitStack() as stack:
                await self._serve(scope, receive, send, stack)
        except ServiceError as error:
            metrics.SOCKETS_REFUSED.labels(error.code).inc()
            await _answer(send, error, "websocket.http.response")

    async def _serve(self, scope: Scope, receive: Receive, send: Send, stack: ExitStack) -> None:
        path = scope["path"]
        # Only the declared spelling is accepted, so that no other spelling evades a rule of a proxy.
        if path not in PATHS or scope["raw_path"] != path.encode():
            raise NotFound("There is no WebSocket at this path; connect to /v1/realtime.")
        scope[ROUTE] = path
        require_origin(IncomingRequest(scope), self._origins)
        wire: WebSocketWire = scope["extensions"][EXTENSION]
        session: ClientSession | LobbySession

        def cut_off() -> None:
            session.close(CloseCode.SLOW)
            wire.transport.abort()

        waiting = WaitingBytes(self._clients, cut_off=cut_off)

        def admit(known: Access) -> None:
            waiting.owner = known.principal.owner_id
            mark_authenticated(scope, known.principal.owner_id)
            stack.callback(self._limit.take(known.principal.owner_id))

        # A key or token in the headers, or a subprotocol that carries one.
        offered = [name for name in scope["subprotocols"] if name.startswith(_KEY_PROTOCOL)]
        text = token(IncomingRequest(scope)) or (offered[0].removeprefix(_KEY_PROTOCOL) if offered else None)
        address = reading.address(IncomingRequest(scope))
        wire.in_turn = lambda weight, work: self._realtime.turns.run(
            waiting.owner or address or "", work, weight=weight
        )
        await self._realtime.turns.take(address or "", weight=_WEIGHT_OF_AN_UPGRADE)
        access = None if text is None else await self._realtime.authenticate(text, address)
        if access is not None:
            admit(access)
        elif path == _LOBBY:
            raise Unauthenticated("The upgrade has no API key or token: send one in its headers.")
        if path == _LOBBY and access is not None:
            session = LobbySession(
                self._realtime, access, write=wire.write_frame, close_connection=wire.close
            )
        else:
            session = ClientSession(
                self._realtime,
                offered=access,
                write=wire.write_frame,
                close_connection=wire.close,
                # A client that authenticated with the upgrade already has a place.
                admit=admit if access is None else lambda _: None,
                address=address,
            )
        await self._converse(session, waiting, scope, receive, send)

    async def _converse(
        self,
        session: ClientSession | LobbySession,
        waiting: WaitingBytes,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        wire: WebSocketWire = scope["extensions"][EXTENSION]
        session.queue.on_size, wire.on_size = waiting.in_queue, waiting.in_transport
        wire.on_received, wire.on_lost = waiting.received, session.release
        # Whatever is published before the answer to the upgrade waits for it.
        session.queue.pause()
        if isinstance(session, LobbySession):
            await session.open()
        wire.on_pause, wire.on_resume = session.queue.pause, session.queue.resume
        self._connections.add(session)
        metrics.SOCKETS.labels("websocket").inc()
        try:
            is_offered = _PROTOCOL in scope["subprotocols"]
            chosen = _PROTOCOL if is_offered else None
            await send({"type": "websocket.accept", "subprotocol": chosen, "headers": []})
            if not wire.is_blocked:
                session.queue.resume()
            while (message := await receive())["type"] == "websocket.receive":
                text = message.get("text")
                await session.receive(message.get("bytes") or b"" if text is None else text)
        except ClientDisconnected:
            log.debug("connection lost before it was accepted")
        except Exception as error:
            log.error("connection failed", exc_info=error)
            session.close(CloseCode.INTERNAL_ERROR)
        finally:
            metrics.SOCKETS.labels("websocket").dec()
            self._connections.remove(session)
            session.release()


async def _answer(send: Send, error: ServiceError, kind: str) -> None:
    headers: list[Any] = [(n.encode(), v.encode()) for n, v in problem_headers(error).items()]
    body = orjson.dumps(problem(error), option=orjson.OPT_APPEND_NEWLINE)
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": f"{kind}.start", "status": error.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body, "more_body": False})
