"""One connection of `/ws`: each line of chat goes to everybody in the lobby as `Message received: <line>`."""

from __future__ import annotations

import time
from collections.abc import Callable

from chassis import metrics, shares
from chassis.errors import Overloaded, ServiceError
from gateway.publishing.positions import Handover, HandoverOverflow
from gateway.publishing.publications import Publication
from gateway.publishing.signals import FellBehind, Signal
from gateway.publishing.text_frames import text_frame
from gateway.realtime.access import Access
from gateway.realtime.channels import channel_of
from gateway.realtime.codes import CloseCode, CloseConnection, CommandError
from gateway.realtime.command_rate import CommandRate
from gateway.realtime.send_queue import SendQueue
from gateway.realtime.session import Realtime

_LOBBY = channel_of("chat:lobby")


class LobbySession:
    """Posts and listens through the same checked functions as every other interface of `chat:lobby`."""

    def __init__(
        self,
        realtime: Realtime,
        access: Access,
        *,
        write: Callable[[bytes], None],
        close_connection: Callable[[CloseCode, str], None],
    ) -> None:
        self.access: Access | None = access
        self._realtime = realtime
        self._caller = access
        self._close_connection = close_connection
        self._is_closed = False
        self._rate = CommandRate(realtime.owner_rates)
        self._rate.owner = access.principal.owner_id
        self._handover: Handover[Publication] = Handover(is_ordered=True)
        self._stop: Callable[[], None] = lambda: None
        self.queue = SendQueue(
            write, limit_bytes=realtime.buffer_bytes, on_overflow=lambda: self.close(CloseCode.SLOW)
        )

    async def open(self) -> None:
        """Subscribe to the lobby.

        Raise `Forbidden` without the right to read it, and `Overloaded` if too much is posted meanwhile or
        the owner has too many subscriptions.
        """

        def show(publication: Publication) -> None:
            if self._handover.offer(publication):
                self._say(publication)

        shares.current.set(self._caller.principal.owner_id)
        owner = self._caller.principal.owner_id
        self._stop = self._realtime.channels.hub.listen(str(_LOBBY), show, owner=owner, on_signal=self._take)
        try:
            joined = await self._realtime.channels.join(self._caller, _LOBBY, None)
            held = self._handover.begin(joined.position)
        except BaseException as error:
            self._stop()
            if isinstance(error, HandoverOverflow):
                raise Overloaded(
                    "Too much was posted while the lobby was read; connect again.", retry_after_s=1
                ) from None
            raise
        for publication in held:
            self._say(publication)

    async def receive(self, frame: str | bytes) -> None:
        """Post one line; reply to an invalid one with `Error: <reason>`."""
        await self._realtime.turns.take(self._rate.owner)
        if self._is_closed:
            # Lines that were here before the close, such as those of a key that was revoked meanwhile.
            return
        text = frame if isinstance(frame, str) else frame.decode("utf-8", "replace")
        try:
            self._rate.count(len(text))
            shares.current.set(self._caller.principal.owner_id)
            await self._realtime.channels.publish(self._caller, _LOBBY, {"text": text})
        except CloseConnection as closing:
            self.close(closing.code, closing.reason)
        except CommandError as error:
            self.queue.put(text_frame(f"Error: {error.message}".encode()))
        except ServiceError as error:
            self.queue.put(text_frame(f"Error: {error.detail}".encode()))
        if self._rate.is_over and not self._is_closed:
            await self._rate.pause()

    def tick(self, now: float) -> None:  # noqa: ARG002 - the protocol of `Connections`
        """Close the connection if the token has expired."""
        expires_at = self._caller.expires_at
        if expires_at is not None and time.time() >= expires_at:
            self.close(CloseCode.EXPIRED)

    def change_access(self, access: Access | None) -> None:
        """Apply the current rights; close the connection without the right to read the lobby."""
        if access is None:
            self.close(CloseCode.INVALID_TOKEN)
        elif not access.may(_LOBBY.kind.read, str(_LOBBY)):
            self.close(CloseCode.PERMISSION_DENIED)
        else:
            self.access = self._caller = access

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close the connection with `code`."""
        if not self._is_closed:
            closing = CloseConnection(code, reason)
            self.release()
            self._close_connection(closing.code, closing.reason)

    def release(self) -> None:
        """Stop listening and post no more lines: the connection has ended."""
        self._is_closed = True
        self._stop()
        self.queue.close()

    def _take(self, signal: Signal) -> None:
        if not isinstance(signal, FellBehind):
            return
        metrics.FELL_BEHIND.inc()
        if self._handover.position is None:
            # The upgrade is refused.
            self._handover.lose()
        else:
            self.close(CloseCode.SLOW)

    def _say(self, publication: Publication) -> None:
        self.queue.put(text_frame(f"Message received: {publication.data['text']}".encode()))
