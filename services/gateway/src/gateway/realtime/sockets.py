"""`/v1/realtime` and `/ws`: WebSockets from the upgrade to the close."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from quart import Quart, websocket

from chassis import logging, metrics
from chassis.errors import Overloaded, ServiceError, Unauthenticated
from chassis.http1.admission import mark_authenticated
from gateway.http.endpoint import Api, token
from gateway.http.principal import Principal
from gateway.realtime.channels import Channels
from gateway.realtime.hub import Publication
from gateway.realtime.session import PING_S, SLOW, UNAUTHENTICATED, CloseConnection, Pace, Session

log = logging.get(__name__)

FAILED = 1011
TRY_LATER = 3000
_CONNECT_WITHIN_S = 10
_CLOSE_WITHIN_S = 30
_LONGEST_REASON = 120
_MOST_LINES = 1000


class ConnectionLimit:
    """Counts WebSocket and SSE connections and lets no more in than fit."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = 0

    def require_room(self) -> None:
        """Raise `Overloaded` when there is no place."""
        if self._open >= self._most:
            raise Overloaded(
                "This gateway holds as many connections as it can; try another.", retry_after_s=5
            )

    @contextlib.contextmanager
    def admit(self, transport: str) -> Iterator[None]:
        """Hold a place for one connection; raises `Overloaded` when there is none."""
        self.require_room()
        self._open += 1
        metrics.SOCKETS.labels(transport).inc()
        try:
            yield
        finally:
            self._open -= 1
            metrics.SOCKETS.labels(transport).dec()


def register(app: Quart, api: Api, channels: Channels, *, limit: ConnectionLimit, buffer_bytes: int) -> None:
    """Serve the routes."""

    @app.websocket("/v1/realtime")
    async def realtime() -> None:
        with limit.admit("websocket"):
            await _serve(api, channels, buffer_bytes)

    @app.websocket("/ws")
    async def lobby() -> None:
        with limit.admit("websocket"):
            await _serve_lobby(api, channels)


async def _serve(api: Api, channels: Channels, buffer_bytes: int) -> None:
    principal = await _principal_of_upgrade(api)
    await websocket.accept()
    scope = websocket.scope

    async def authenticate(key: str | None) -> Principal:
        found = await api.keyring.authenticate(key)
        mark_authenticated(scope)
        return found

    session = Session(channels, authenticate, principal=principal, buffer_bytes=buffer_bytes)
    parts = (_read(session), _write(session), _guard(session), _watch(session, api))
    await _run(*parts, release=session.close)


async def _principal_of_upgrade(api: Api) -> Principal | None:
    if token(websocket.headers) is None:
        return None
    return await api.authenticate(websocket)


async def _run(*parts: Coroutine[Any, Any, None], release: Callable[[], None]) -> None:
    """Run the parts of a connection until one ends, `release` what it holds, and close it."""
    closing = None
    try:
        await _until_one_ends(*parts)
    except Exception as error:
        closing = _verdict(error)
    finally:
        release()
    if closing is not None:
        await _close(closing)


async def _until_one_ends(*parts: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def _verdict(error: Exception) -> CloseConnection | None:
    if isinstance(error, CloseConnection):
        return error
    if isinstance(error, ServiceError):
        return CloseConnection(TRY_LATER if error.retryable else FAILED, error.detail)
    if isinstance(error, OSError):
        log.debug("connection lost", reason=repr(error))
        return None
    log.error("connection failed", path=websocket.path, exc_info=error)
    return CloseConnection(FAILED, "The gateway failed.")


async def _close(closing: CloseConnection) -> None:
    metrics.SOCKETS_CLOSED.labels(str(closing.code)).inc()
    reason = closing.reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
    try:
        # Behind what a slow reader has still to read; the wire cuts off one that does not read at all.
        async with asyncio.timeout(_CLOSE_WITHIN_S):
            await websocket.close(closing.code, reason)
    except OSError as error:
        log.debug("connection not closed", code=closing.code, reason=repr(error))


async def _read(session: Session) -> None:
    while True:
        frame: str | bytes = await websocket.receive()
        await session.receive(frame)


async def _write(session: Session) -> None:
    while not session.mailbox.overflowed:
        for frame in await session.mailbox.take():
            await websocket.send(frame.decode())


async def _guard(session: Session) -> None:
    # Beside the writer, who may be stuck on a peer that does not read.
    await session.mailbox.wait_overflow()
    raise CloseConnection(SLOW, "This connection reads too slowly; connect again and recover.")


async def _watch(session: Session, api: Api) -> None:
    await asyncio.sleep(_CONNECT_WITHIN_S)
    while True:
        if session.principal is None:
            raise CloseConnection(UNAUTHENTICATED, f"No connect command within {_CONNECT_WITHIN_S} s.")
        if not await api.keyring.is_still_good(session.principal):
            raise CloseConnection(UNAUTHENTICATED, "The API key has expired or was revoked.")
        await asyncio.sleep(PING_S)
        session.alive()


async def _serve_lobby(api: Api, channels: Channels) -> None:
    """A chat line in, `Message received: <line>` out: to the sender and to everyone in the lobby."""
    principal = await _principal_of_upgrade(api)
    if principal is None:
        raise Unauthenticated("Send your API key with the upgrade.")
    await channels.chat.follow("lobby")
    lines: asyncio.Queue[str] = asyncio.Queue(maxsize=_MOST_LINES)

    def heard(publication: Publication) -> None:
        # A reader that is a thousand lines behind loses lines here; `/v1/realtime` recovers them.
        if not lines.full():
            lines.put_nowait(f"Message received: {publication.data['text']}")

    stop = channels.hub.listen("chat:lobby", heard)
    try:
        await websocket.accept()
        await _run(_read_lines(channels, principal, lines), _write_lines(lines), release=stop)
    finally:
        stop()


async def _read_lines(channels: Channels, principal: Principal, lines: asyncio.Queue[str]) -> None:
    pace = Pace()
    while True:
        frame: str | bytes = await websocket.receive()
        pace.count()
        text = frame if isinstance(frame, str) else frame.decode("utf-8", "replace")
        try:
            await channels.chat.post("lobby", principal, {"text": text})
        except ServiceError as error:
            await lines.put(f"Error: {error.detail}")


async def _write_lines(lines: asyncio.Queue[str]) -> None:
    while True:
        await websocket.send(await lines.get())
