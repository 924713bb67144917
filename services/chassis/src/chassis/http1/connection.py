"""A TCP connection: passes its requests to the application, and closes when something takes too long."""

from __future__ import annotations

import asyncio
import contextvars
import math
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from chassis import metrics
from chassis.http1 import refusals
from chassis.http1.admission import PLACE, Admission, Place
from chassis.http1.exchange import HttpExchange
from chassis.http1.head import RequestHead
from chassis.http1.limits import LINGER_BYTES, UNREAD_BYTES, USUAL_BYTES
from chassis.http1.reader import RequestReader
from chassis.http1.reading_turn import ReadingTurn
from chassis.http1.refusals import Fields, ListenerFull, RequestRefused, RequestTimedOut
from chassis.http1.scope import Ends, http_scope, websocket_head
from chassis.http1.timing import BodyRate, WriteStall
from chassis.http1.write_side import WriteSide


class HttpConnection(WriteSide):
    """A connection of uvicorn's server (`uvicorn.Config(http=…)`), from its first byte to its last.

    The application has one request at a time; later ones wait as bytes. After a request that is
    refused, or whose body is not read to its end, the connection closes: nobody can tell where the next
    request begins. Owners take `turns` at having heads read, because thousands of connections may send
    theirs at once.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        admission: Admission,
    ) -> None:
        super().__init__()
        limits = admission.limits
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._admission = admission
        self._limits = limits
        # Each request begins in this context, not in what the one before it has left.
        self._context = contextvars.copy_context()
        self._ends = Ends(None, None, "http")
        self._is_proxy = False
        self._place: Place | None = None
        self._reader = RequestReader()
        self._exchange: HttpExchange | None = None
        self._websocket: asyncio.Protocol | None = None
        self._received = self._discarded = 0
        self._deadline = self._lingers_until = math.inf
        self._body_rate = BodyRate(window_s=limits.body_window_s, least_rate=limits.body_rate)
        self._write_stall = WriteStall(limits.write_stall_s)
        # Between two requests. A new connection has its time for a whole head from the beginning.
        self._is_idle = False
        self._is_cut_off = False
        self._is_reading = True
        self._turn = ReadingTurn(admission.turns, self._loop, self._advance)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place for the connection, or refuse it."""
        super().connection_made(transport)
        client, scheme = get_remote_addr(self._transport), "https" if is_ssl(self._transport) else "http"
        self._ends = Ends(get_local_addr(self._transport), client, scheme)
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own classes
        self._deadline = self._loop.time() + self._limits.head_s
        try:
            host = client[0] if client else ""
            self._admission.open(self, self._loop, host)
            self._is_proxy = self._admission.is_trusted(host)
            if not self._is_proxy:
                self._place = self._admission.take(host, self)
        except RequestRefused as refusal:
            self._write_refusal(refusal, with_body=True)
            # It has no place in which it could wait for the client to read and close.
            self._is_closing = True
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._websocket is not None:
            self._websocket.data_received(data)
        elif self._is_closing:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self._transport.abort()
            self._deadline = min(self._loop.time() + self._limits.linger_s, self._lingers_until)
        else:
            if self._is_idle:
                self._is_idle = False
                self._deadline = self._loop.time() + self._limits.head_s
            self._received += len(data)
            self._reader.buffer += data
            if self._exchange is None:
                self._turn.want_head(self.payer)
            elif not self._turn.is_due:
                self._advance()
            if self._turn.is_due:
                self._hold_bytes()
                self._pace_reading()

    def eof_received(self) -> bool | None:
        """Close: a client that has shut down its side is treated as gone."""
        return self._websocket.eof_received() if self._websocket is not None else None

    def pause_writing(self) -> None:
        """Make the application wait until the client has read more."""
        super().pause_writing()
        if self._websocket is not None:
            self._websocket.pause_writing()
        else:
            self._hold_bytes()

    def resume_writing(self) -> None:
        """Let the application write again, and begin the request that has waited for that."""
        super().resume_writing()
        if self._websocket is not None:
            self._websocket.resume_writing()
            return
        self._hold_bytes()
        if self._reader.buffer and self._exchange is None and not self._is_closing:
            self._deadline = self._loop.time() + self._limits.head_s
            self._turn.want(self.payer, is_in_body=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything that the connection held."""
        self._is_closing = True
        self._server_state.connections.discard(self)
        self._admission.close(self)
        self._reader.buffer.clear()
        if self._exchange is not None:
            self._turn.end(self.payer, self._exchange)
            self._exchange = None
        self.resume_writing()
        if self._place is not None:
            self._place.release()
        if self._websocket is not None:
            self._websocket.connection_lost(exc)

    # What the server and its timer call.

    def shutdown(self) -> None:
        """Close after the answer that is being given, or now."""
        if self._turn.is_due:
            # A request may have arrived, and wait to be read.
            self._turn.begin()
        if self._exchange is None:
            self._is_closing = True
            self._transport.close()
        else:
            self._exchange.keep_alive = False

    @property
    def payer(self) -> str:
        """The owner of the key, or the address of a client without one."""
        return "" if self._place is None else self._place.owner_id or self._place.address

    def let_go(self) -> None:
        """Give up the bytes that wait here, because this client has the most of all."""
        exchange = self._exchange
        if self.is_blocked or self._is_closing:
            metrics.HTTP_REFUSED.labels("bytes").inc()
            self.abort()
        elif exchange is not None and not exchange.unread and self.has_whole_body():
            # The request is being processed: only what waits behind it is dropped.
            metrics.HTTP_REFUSED.labels("bytes").inc()
            exchange.keep_alive, self._is_cut_off = False, True
            self._reader.buffer.clear()
        else:
            detail = "Too many bytes of your requests are waiting; send fewer at once."
            self._refuse(ListenerFull("bytes", detail, retry_after_s=1))

    def give_way(self) -> bool:
        """Close for a newer client and return True, unless a request is answered or has its turn soon.

        What waits for the client is neither: a request without its body, an answer that is not taken.
        """
        if self._is_at_work and not self.is_blocked:
            return False
        is_untaken = self._is_closing or self.unsent > 0
        if self._exchange is not None and not is_untaken:
            detail = "The body of the request had not arrived when another client needed the connection."
            self._refuse(RequestTimedOut("gave_way", detail), lingers=False)
            return True
        metrics.HTTP_REFUSED.labels("gave_way").inc()
        if self._websocket is not None or is_untaken:
            # A graceful close would wait until the client reads, and no limit counts the connection any more.
            self.abort()
        else:
            self._close(is_client_sending=False)
        return True

    def enforce_deadlines(self, now: float) -> None:
        """End the connection if it has taken too long at the loop's time `now`."""
        if self._websocket is not None:
            return
        is_to_be_taken = self.is_blocked or self._is_closing
        if self._write_stall.is_over(now, self.unsent if is_to_be_taken else 0):
            metrics.HTTP_REFUSED.labels("write_stall").inc()
            self.abort()
        elif now < self._deadline:
            is_awaited = self._exchange is not None and self._exchange.is_body_awaited
            if self._body_rate.is_too_slow(now, self._received, is_awaited=is_awaited):
                self._refuse(RequestTimedOut("body_timeout", "The body of the request arrived too slowly."))
        elif self._is_closing:
            # The client's time begins when the last byte of the answer has been sent.
            self._deadline = now + self._limits.linger_s
            if not self.unsent:
                self._transport.abort()
        elif self._turn.is_due:
            # A whole head may have arrived in time, and wait for the turns of others.
            self._turn.begin()
        elif self._reader.buffer:
            self._refuse(RequestTimedOut("head_timeout", "The head of the request did not arrive in time."))
        else:
            if not self._received:
                metrics.HTTP_REFUSED.labels("idle").inc()
            self._close(is_client_sending=False)

    @property
    def _is_at_work(self) -> bool:
        """Whether what has arrived is being answered, or has its turn soon."""
        if self._websocket is not None:
            return bool(getattr(self._websocket, "is_at_work", False))
        is_in_line = self._turn.is_due and self._reader.has_more
        return is_in_line or (self._exchange is not None and not self._exchange.is_body_awaited)

    # From bytes to requests.

    def _advance(self) -> None:
        try:
            while self._reader.buffer and self._read_next():
                pass
        except RequestRefused as refusal:
            self._refuse(refusal)
        self._hold_bytes()
        if self._reader.buffer or not self._is_reading:
            self._pace_reading()

    def _read_next(self) -> bool:
        if self._reader.is_in_body:
            assert self._exchange is not None
            before = len(self._reader.buffer)
            data = self._reader.read_body()
            is_complete = not self._reader.is_in_body
            if data or is_complete:
                self._exchange.add_body(data, is_complete=is_complete)
                self._pace_reading()
            if 0 < len(self._reader.buffer) < before and not is_complete:
                self._turn.want(self.payer, is_in_body=True)
            return is_complete
        if self._is_closing:
            return False
        if self._exchange is not None or self._websocket is not None or self.is_blocked:
            # The next request waits until the answer to the one before it is taken.
            self._deadline = math.inf
            return False
        head = self._reader.read_head()
        if head is not None:
            self._begin(head)
        return head is not None

    def _hold_bytes(self) -> None:
        """Count what waits here: for the rest of a head, for the application, or for the client."""
        unread = len(self._reader.buffer) + (0 if self._exchange is None else len(self._exchange.unread))
        unsent = self.unsent if self.is_blocked else 0
        self._admission.held_bytes.hold(self, unsent + (unread if unread > USUAL_BYTES else 0))

    def _begin(self, head: RequestHead) -> None:
        ends = self._ends
        if self._is_proxy:
            assert ends.client is not None
            # The client behind the proxy has a place while its request lasts.
            host = self._admission.client_of(head.fields, ends.client[0])
            self._place = self._admission.take(host, self)
            ends = Ends(ends.server, (host, 0), self._admission.scheme_of(head.fields, ends.scheme))
        self._deadline = math.inf
        if self._reader.is_in_body:
            self._body_rate.begin(self._received)
        if head.is_websocket and self._config.ws_protocol_class is not None:
            if self._reader.buffer:
                raise RequestRefused(
                    "upgrade", "A client of WebSockets must wait for the answer to its upgrade."
                )
            self._turn.charge_upgrade()
            make: Any = self._config.ws_protocol_class
            state = {**self._app_state, PLACE: self._place}
            protocol = make(config=self._config, server_state=self._server_state, app_state=state)
            self._server_state.connections.discard(self)
            self._transport.set_write_buffer_limits()
            # It stays behind this one, which learns so when the place is free again.
            self._websocket = protocol
            protocol.connection_made(self._transport)
            protocol.data_received(websocket_head(head))
            return
        scope = http_scope(head, ends, self._app_state, self._place)
        exchange = self._exchange = HttpExchange(self, head, scope, has_body=self._reader.is_in_body)
        running = exchange.run(self._config.loaded_app)
        task = self._loop.create_task(running, context=self._context.copy())
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    # What the exchange calls.

    def has_whole_body(self) -> bool:
        """Return whether the request has arrived to its end."""
        return not self._reader.is_in_body

    def date_line(self) -> bytes:
        """Return the `Date` field line that every answer has."""
        return self._admission.date_line

    def on_body_read(self) -> None:
        """Continue reading: the application has taken what had arrived."""
        self._hold_bytes()
        self._pace_reading()

    def on_response_complete(self) -> None:
        """Begin the next request, or close."""
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        self._server_state.total_requests += 1
        is_authenticated = self._is_proxy or (self._place is not None and self._place.is_authenticated)
        if self._is_proxy and self._place is not None:
            self._place.release()
        if not exchange.keep_alive:
            is_sending = bool(self._reader.is_in_body or self._is_cut_off or self._reader.buffer)
            self._close(is_client_sending=is_sending)
            return
        if self._reader.buffer:
            self._deadline = self._loop.time() + self._limits.head_s
            self._turn.want(self.payer, is_in_body=False)
        else:
            idle_s = self._limits.idle_s if is_authenticated else self._limits.unauthenticated_idle_s
            self._is_idle = True
            self._deadline = self._loop.time() + idle_s
        if not self._is_reading:
            self._pace_reading()
        self._hold_bytes()

    def _pace_reading(self) -> None:
        unread = 0 if self._exchange is None else len(self._exchange.unread)
        has_room = max(len(self._reader.buffer), unread) <= UNREAD_BYTES
        if has_room == self._is_reading or self._transport.is_closing():
            return
        self._is_reading = has_room
        if has_room:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    # The end.

    def _refuse(self, refusal: RequestRefused, *, lingers: bool = True) -> None:
        """Answer with a problem document in place of the application, and close."""
        exchange, self._exchange = self._exchange, None
        with_body = not self._reader.begins_with_head_request
        if exchange is not None:
            exchange.disconnect()
            with_body = exchange.scope["method"] != "HEAD"
            if exchange.is_answered:
                metrics.HTTP_REFUSED.labels(refusal.reason).inc()
                self._is_closing = True
                self._reader.buffer.clear()
                self._transport.abort()
                return
        self._write_refusal(refusal, with_body=with_body, asked=exchange.scope["headers"] if exchange else ())
        self._close(is_client_sending=lingers)

    def _write_refusal(self, refusal: RequestRefused, *, with_body: bool, asked: Fields = ()) -> None:
        metrics.HTTP_REFUSED.labels(refusal.reason).inc()
        self.write(refusals.response(refusal, with_body=with_body, fields=self.date_line(), asked=asked))

    def _close(self, *, is_client_sending: bool) -> None:
        self._is_closing = True
        self._reader.buffer.clear()
        self._hold_bytes()
        if not is_client_sending:
            self._transport.close()
            return
        # RFC 9112, 9.6: closed at once, the unread rest of the request would reset the connection, and the
        # client could lose the answer.
        now = self._loop.time()
        self._deadline, self._lingers_until = now + self._limits.linger_s, now + self._limits.most_linger_s
        self._transport.write_eof()
        self._pace_reading()
