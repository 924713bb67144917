"""The WebSocket server protocol under uvicorn, with limits that uvicorn does not have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.protocol import State

from chassis import metrics
from gateway.realtime.codes import CLOSE_REASONS, CloseCode
from gateway.realtime.frames import FrameBudget
from gateway.realtime.handshake import Handshake

EXTENSION = "tickwire.wire"
_LARGEST_MESSAGE = 64 * 1024
COMPLETE_WITHIN_S = 10.0
_LINGER_S = 1.0
_LONGEST_REASON = 120
# In the units of `LoopTurns`.
_WEIGHT_OF_A_FRAME = 2


class WebSocketWire(WebSocketsSansIOProtocol):
    """One WebSocket: frames are counted before they are parsed, and a client that does not read is cut off.

    The application gets the wire in the scope's extensions and writes encoded frames to it, without a task or
    queue between a publication and the socket. `on_pause` and `on_resume` report when the client
    reads more slowly than the gateway writes, and `on_size` how many bytes wait here then. `on_received`
    reports how many bytes of messages are incomplete or not handled yet, and `on_lost` the end. What takes
    longer to parse than one message is done by `in_turn`, which is given its weight.
    """

    patience_s = 20.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = Handshake(extensions=[], max_size=_LARGEST_MESSAGE, logger=self.logger)
        self.on_pause: Callable[[], None] = _nothing
        self.on_resume: Callable[[], None] = _nothing
        self.on_size: Callable[[int], None] = _nothing
        self.on_received: Callable[[int], None] = _nothing
        self.on_lost: Callable[[], None] = _nothing
        self.in_turn: Callable[[int, Callable[[], None]], None] = lambda _, work: work()
        self._budget = FrameBudget(self.loop.time)
        self._stalled: asyncio.TimerHandle | None = None
        self._incomplete: asyncio.TimerHandle | None = None
        # The sizes of the messages that the application has not handled yet, the one at work included.
        self._messages: list[int] = []
        self._is_at_work = False
        self._has_handled_one = False
        self._is_lingering = False
        # What has been counted, and waits to be parsed.
        self._unparsed = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count whatever the client has not read, from the first byte on."""
        super().connection_made(transport)
        # By default, the first 64 KiB would be neither counted nor have a deadline.
        self.transport.set_write_buffer_limits(high=0)
        if not self.is_blocked and self.transport.get_write_buffer_size():
            # An answer before the upgrade was too long for the transport, which reports that only once.
            self.pause_writing()

    @property
    def is_blocked(self) -> bool:
        """Whether the client has not read everything that was written."""
        return self._stalled is not None

    @property
    def is_at_work(self) -> bool:
        """Whether the upgrade or the first message, which says who the client is, is being handled.

        The connection does not give way to others then (`HttpConnection.give_way`). Later it does, or those
        who send any number of messages would keep others out.
        """
        is_first_here = not self._has_handled_one and bool(self._messages or self._unparsed)
        return is_first_here or not self.handshake_complete

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message of the application."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            # A refused handshake is complete: uvicorn would log it as an error, as if it had no response.
            self.handshake_complete = True

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next event for the application, which has handled the one before."""
        if self._is_at_work:
            del self._messages[0]
            self._has_handled_one = True
            self._count_received()
        was_paused = self.read_paused
        event = await super().receive()
        self._is_at_work = event["type"] == "websocket.receive"
        if was_paused and not self.read_paused:
            # What the client has sent meanwhile was not read here, so the client is not late.
            self._expect_rest(renew=True)
            self._expect_pong()
        return event

    def write_frame(self, frame: bytes) -> None:
        """Write an encoded frame; do nothing after a close."""
        if not self.close_sent and not self.disconnected:
            self.transport.write(frame)

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake and end the application's `receive`."""
        if self.conn.state is State.CONNECTING:
            self.transport.abort()
        # A client that has begun the closing handshake itself has its answer: another close would raise.
        if self.close_sent or self.disconnected or self.conn.state is not State.OPEN:
            return
        short = reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
        metrics.SOCKETS_CLOSED.labels(str(int(code))).inc()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": short})
        self.conn.send_close(code, short)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._count_unread()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        # A transport that is only closed waits until the client has read everything.
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)

    def shutdown(self) -> None:
        """Close for the stop of the server, whatever the state of the connection."""
        if self.conn.state in (State.CONNECTING, State.OPEN):
            super().shutdown()
        else:
            # The closing handshake is under way already: uvicorn would begin another, which raises.
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Handle bytes from the network while their frames are within the budget."""
        if self._is_lingering:
            return
        if self.handshake_initiated and not self._budget.allows(data):
            self._fail(CloseCode.POLICY_VIOLATION)
            return
        if self._budget.is_padded:
            self._fail(CloseCode.PROTOCOL_ERROR)
            return
        count = self._budget.newest
        if not self._unparsed and count <= 1:
            self._parse(data)
            return
        is_first = not self._unparsed
        self._unparsed += data
        if is_first:
            self.in_turn(count * _WEIGHT_OF_A_FRAME, self._parse_rest)
        if self._unparsed:
            self._count_received()
            if not self.read_paused:
                self.read_paused = True
                self.transport.pause_reading()

    def handle_connect(self, event: Any) -> None:
        """Start the application, which finds this wire in its scope."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[EXTENSION] = self

    def handle_cont(self, event: Frame) -> None:
        """Store a fragment; ignore an empty one."""
        if event.data or event.fin:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Pass a whole message to the application; text only if it is valid UTF-8."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                for_check = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
                bytes(for_check).decode()
            except UnicodeDecodeError:
                self._fail(CloseCode.INVALID_TEXT)
                return
        if not self.close_sent:
            self._messages.append(sum(map(len, self.frames)))
        self._forget_incomplete()
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer a ping, even while the client does not read the answers."""
        super().handle_ping()
        self._count_unread()

    def handle_close(self, event: Frame) -> None:
        """Answer the closing handshake; nothing is written after it."""
        super().handle_close(event)
        self.close_sent = True

    def keepalive_timeout(self) -> None:
        """Close a connection without a pong, unless the pong or its ping may wait here."""
        if self.read_paused or self.is_blocked:
            self._expect_pong()
        else:
            super().keepalive_timeout()

    def handle_parser_exception(self) -> None:
        """Close as the parser has decided: 1002 for a broken frame, 1009 for one that is too big."""
        sent = self.conn.close_sent
        if sent is None:
            self.transport.close()
            return
        metrics.SOCKETS_CLOSED.labels(str(int(sent.code))).inc()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": sent.code, "reason": sent.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._linger()

    def pause_writing(self) -> None:
        """Call `on_pause`; close the connection if the client does not read for too long."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.patience_s, self.transport.abort)
        self.on_pause()
        self._count_unread()

    def resume_writing(self) -> None:
        """Call `on_resume`: the client has read enough."""
        self._forget_stall()
        super().resume_writing()
        self.on_size(0)
        # A lost connection is resumed, too; what waits for it would be written to nobody.
        if not self.transport.is_closing():
            self._expect_pong()
            self.on_resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers and call `on_lost`: the connection is gone."""
        self._forget_stall()
        self._forget_incomplete()
        super().connection_lost(exc)
        self.on_size(0)
        self.on_received(0)
        self.on_lost()

    def _parse_rest(self) -> None:
        """Parse what has waited for its turn, and read on unless the application has messages to handle."""
        data, self._unparsed = self._unparsed, b""
        if self._is_lingering or self.disconnected:
            return
        was_paused = self.read_paused
        self._parse(data)
        if was_paused and self.queue.empty() and self.read_paused and not self._is_lingering:
            self.read_paused = False
            self.transport.resume_reading()
            self._expect_rest(renew=True)

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        self._expect_rest()
        self._count_received()
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # The parser's limits on lines are lower than the server's. uvicorn would leave its answer unsent,
            # and the client waiting.
            self.close_sent = True
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def _fail(self, code: CloseCode) -> None:
        self.conn.fail(int(code), CLOSE_REASONS[code])
        self.handle_parser_exception()

    def _linger(self) -> None:
        # A socket that is closed with unread bytes is reset, and the peer would not see the close frame, so
        # it gets a moment to read it. What it sends meanwhile is not read, and costs nothing.
        self._is_lingering = True
        if not self.read_paused:
            self.transport.pause_reading()
        self.read_paused = False
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.close_timer = self.loop.call_later(_LINGER_S, self.transport.abort)

    def _count_unread(self) -> None:
        if self.is_blocked:
            self.on_size(self.transport.get_write_buffer_size())

    def _count_received(self) -> None:
        if not self.disconnected:
            incomplete = (self.conn.current_size or 0) + len(self.conn.reader.buffer) + len(self._unparsed)
            self.on_received(sum(self._messages) + incomplete)

    def _expect_rest(self, *, renew: bool = False) -> None:
        """Start the time in which the client must complete a message or control frame that it has begun."""
        is_incomplete = self._budget.is_inside or self.conn.current_size is not None
        if renew or not is_incomplete:
            self._forget_incomplete()
        if is_incomplete and self._incomplete is None and not self.close_sent:
            self._incomplete = self.loop.call_later(COMPLETE_WITHIN_S, self._end_incomplete)

    def _end_incomplete(self) -> None:
        self._incomplete = None
        if self.read_paused:
            # The rest may be here unread: its time begins anew when reading does.
            return
        self.close(CloseCode.SLOW, f"A message must be complete within {COMPLETE_WITHIN_S:.0f} seconds.")

    def _expect_pong(self) -> None:
        """Give the client its whole time again for the pong to a ping, if there is one."""
        if self.pong_timer is not None and self.ping_timeout is not None:
            self.pong_timer.cancel()
            self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)

    def _forget_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _forget_incomplete(self) -> None:
        if self._incomplete is not None:
            self._incomplete.cancel()
            self._incomplete = None


def _nothing(*_: object) -> None:
    """Do nothing: nobody listens."""
