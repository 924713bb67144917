"""WebSockets between uvicorn and Quart, with the limits that neither of them has."""

from __future__ import annotations

import asyncio
from typing import Any

from quart.asgi import ASGIWebsocketConnection
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

_MOST_UNREAD_FRAMES = 16


class WebSocketWire(WSProtocol):
    """uvicorn's side: a peer that takes nothing for 20 seconds is cut off.

    Closing in the normal way would wait, with all that is unsent, for a reader who never comes.
    """

    patience_s = 20.0
    _stalled: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """The peer does not read as fast as is written."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.patience_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The peer has read enough."""
        self._forget_stall()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._forget_stall()
        super().connection_lost(exc)

    def _forget_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class BoundedConnection(ASGIWebsocketConnection):
    """Quart's side: few frames wait for the handler, then no more are taken from the network."""

    def __init__(self, app: Any, scope: Any) -> None:
        super().__init__(app, scope)
        self.queue = asyncio.Queue(_MOST_UNREAD_FRAMES)
