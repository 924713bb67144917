"""One WebSocket connection: commands in, replies and pushes out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson

from chassis import metrics
from chassis.errors import Conflict, InvalidInput, ServiceError, Unauthenticated
from gateway.http import strict_json as documents
from gateway.http.principal import Principal
from gateway.http.strict_json import MOST_ID
from gateway.realtime.channels import Channels, Joined, split
from gateway.realtime.hub import Publication
from gateway.realtime.mailbox import Mailbox

PING_S = 25
SLOW = 3008
TOO_FAST = 3502
UNAUTHENTICATED = 3500
_MOST_CHANNELS = 200
_MOST_COMMANDS_PER_S = 50
_LARGEST_FRAME = 64 * 1024
_MOST_CONFLATE_MS = 60_000

Authenticate = Callable[[str | None], Awaitable[Principal]]
Publications = list[dict[str, Any]]


class CloseConnection(Exception):
    """The connection is to be closed with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Pace:
    """How fast commands may come on one connection."""

    def __init__(self) -> None:
        self._window = 0.0
        self._count = 0

    def count(self) -> None:
        """One more command. Raises `CloseConnection` when there are too many in a second."""
        now = time.monotonic()
        if now - self._window >= 1:
            self._window, self._count = now, 0
        self._count += 1
        if self._count > _MOST_COMMANDS_PER_S:
            raise CloseConnection(TOO_FAST, f"More than {_MOST_COMMANDS_PER_S} commands a second.")


@dataclass(slots=True)
class _Subscription:
    """A channel that this connection listens to."""

    stop: Callable[[], None]
    interval_s: float
    is_conflated: bool
    shown: int


class Session:
    """The protocol of `/v1/realtime`, without the socket: `receive` takes frames, `mailbox` holds answers."""

    def __init__(
        self,
        channels: Channels,
        authenticate: Authenticate,
        *,
        principal: Principal | None,
        buffer_bytes: int,
    ) -> None:
        self.mailbox = Mailbox(buffer_bytes, time.monotonic)
        self.id = uuid4().hex
        self._channels = channels
        self._authenticate = authenticate
        self._principal = principal
        self._subscriptions: dict[str, _Subscription] = {}
        self._pace = Pace()
        # A reply must find a place beside what waits already.
        self._most_reply_bytes = buffer_bytes // 2
        self._commands: dict[str, Callable[[Principal, Mapping[str, Any]], Awaitable[dict[str, Any]]]] = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "publish": self._publish,
            "presence": self._presence,
            "history": self._history,
        }

    @property
    def principal(self) -> Principal | None:
        """Who speaks, once that is known."""
        return self._principal

    async def receive(self, frame: str | bytes) -> None:
        """Take one frame; its answer, or its error, goes to the mailbox. Raises `CloseConnection`."""
        self._pace.count()
        number: Any = None
        try:
            data = _bytes_of(frame)
            command = _parse(data)
            number = command.pop("id", None)
            documents.require_keepable(data, command)
            name, arguments = _only(command)
            reply = await self._run(name, arguments)
        except Unauthenticated as error:
            raise CloseConnection(UNAUTHENTICATED, error.detail) from None
        except ServiceError as error:
            self._reply({"id": number, "error": {"code": error.code, "detail": error.detail}})
        else:
            self._reply({"id": number, name: reply})

    def alive(self) -> None:
        """Say that the connection lives, on a channel where nothing happens."""
        self.mailbox.put(orjson.dumps({"alive": {"server_time": _now()}}))

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in self._subscriptions.values():
            subscription.stop()
        self._subscriptions.clear()
        self.mailbox.close()

    async def _run(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if name == "ping":
            return {}
        if name == "connect":
            return await self._connect(arguments)
        if self._principal is None:
            raise Unauthenticated("The first command is connect, with a token.")
        command = self._commands.get(name)
        if command is None:
            raise InvalidInput(f"There is no command {name!r}.")
        return await command(self._principal, arguments)

    async def _connect(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        token = arguments.get("token")
        if token is not None and not isinstance(token, str):
            raise InvalidInput("token is the text of an API key.")
        if token is not None or self._principal is None:
            self._principal = await self._authenticate(token)
        return {
            "client": self._principal.owner_id,
            "session": self.id,
            "ping_s": PING_S,
            "server_time": _now(),
        }

    async def _subscribe(self, principal: Principal, arguments: Mapping[str, Any]) -> dict[str, Any]:
        channel = _channel(arguments)
        if channel in self._subscriptions:
            raise Conflict(f"{channel} is subscribed to already.")
        if len(self._subscriptions) >= _MOST_CHANNELS:
            raise Conflict(f"A connection has at most {_MOST_CHANNELS} subscriptions.")
        conflate_ms = arguments.get("conflate_ms", 0)
        if not isinstance(conflate_ms, int) or not 0 <= conflate_ms <= _MOST_CONFLATE_MS:
            raise InvalidInput(f"conflate_ms is a whole number from 0 to {_MOST_CONFLATE_MS}.")
        held: list[Publication] = []
        # Listening begins before the state is read, so that nothing falls in between; it waits in `held`.
        stop = self._channels.hub.listen(channel, held.append)
        try:
            joined = await self._channels.join(principal, channel, _recover(arguments))
        finally:
            stop()
        self._listen(channel, joined, conflate_ms / 1000, held)
        is_whole = len(_newest(joined.publications, self._most_reply_bytes)) == len(joined.publications)
        given = joined if is_whole else joined.without_recovery()
        if "recover" in arguments:
            metrics.RECOVERIES.labels("recovered" if given.recovered else "lost").inc()
        return _joined_reply(channel, given)

    def _listen(self, channel: str, joined: Joined, interval_s: float, held: list[Publication]) -> None:
        subscription = _Subscription(lambda: None, interval_s, joined.is_conflated, joined.offset)
        self._subscriptions[channel] = subscription

        def show(publication: Publication) -> None:
            self._show(subscription, publication)

        subscription.stop = self._channels.hub.listen(channel, show)
        # The reply must be first: pushes of the meantime follow it on the next turn of the loop.
        asyncio.get_running_loop().call_soon(self._show_all, subscription, held)

    def _show_all(self, subscription: _Subscription, publications: list[Publication]) -> None:
        for publication in publications:
            self._show(subscription, publication)

    def _show(self, subscription: _Subscription, publication: Publication) -> None:
        if subscription.is_conflated:
            self.mailbox.put_latest(
                publication.channel, publication.document(), interval_s=subscription.interval_s
            )
            metrics.PUBLICATIONS.labels("conflated").inc()
        elif publication.offset > subscription.shown:
            subscription.shown = publication.offset
            self.mailbox.put(orjson.dumps({"push": publication.document()}))
            metrics.PUBLICATIONS.labels("ordered").inc()

    async def _unsubscribe(self, _: Principal, arguments: Mapping[str, Any]) -> dict[str, Any]:
        channel = _channel(arguments)
        subscription = self._subscriptions.pop(channel, None)
        if subscription is None:
            raise InvalidInput(f"{channel} is not subscribed to.")
        subscription.stop()
        self.mailbox.forget(channel)
        return {"channel": channel}

    async def _publish(self, principal: Principal, arguments: Mapping[str, Any]) -> dict[str, Any]:
        offset = await self._channels.post(principal, _channel(arguments), arguments.get("data"))
        return {"offset": offset}

    async def _presence(self, _: Principal, arguments: Mapping[str, Any]) -> dict[str, Any]:
        channel = _channel(arguments)
        return {"channel": channel, "connections": self._channels.hub.counts().get(channel, 0)}

    async def _history(self, _: Principal, arguments: Mapping[str, Any]) -> dict[str, Any]:
        channel, limit, before = _channel(arguments), arguments.get("limit", 50), arguments.get("before")
        if not isinstance(limit, int) or not 1 <= limit <= 300:
            raise InvalidInput("limit is a whole number from 1 to 300.")
        if before is not None and not (isinstance(before, int) and 0 <= before <= MOST_ID):
            raise InvalidInput("before is an offset.")
        publications = await self._channels.history(channel, before=before, limit=limit)
        # Fewer than asked for, when they are long: `before` gets the rest.
        return {"channel": channel, "publications": _newest(publications, self._most_reply_bytes)}

    def _reply(self, document: dict[str, Any]) -> None:
        self.mailbox.put(orjson.dumps(document, option=orjson.OPT_UTC_Z))


def _bytes_of(frame: str | bytes) -> bytes:
    data = frame.encode() if isinstance(frame, str) else frame
    if len(data) > _LARGEST_FRAME:
        raise CloseConnection(1009, f"A frame has at most {_LARGEST_FRAME} bytes.")
    return data


def _parse(data: bytes) -> dict[str, Any]:
    command = documents.read(data)
    if not isinstance(command, dict):
        raise InvalidInput("A frame is a JSON object.")
    return command


def _only(command: dict[str, Any]) -> tuple[str, Mapping[str, Any]]:
    if len(command) != 1:
        raise InvalidInput("A frame has an id and exactly one command.")
    ((name, arguments),) = command.items()
    if not isinstance(arguments, dict):
        raise InvalidInput(f"The arguments of {name} are a JSON object.")
    return name, arguments


def _channel(arguments: Mapping[str, Any]) -> str:
    channel = arguments.get("channel")
    if not isinstance(channel, str):
        raise InvalidInput("Name the channel.")
    kind, name = split(channel)
    return f"{kind}:{name}"


def _recover(arguments: Mapping[str, Any]) -> Mapping[str, Any] | None:
    recover = arguments.get("recover")
    if recover is not None and not isinstance(recover, dict):
        raise InvalidInput("recover is an object with epoch and offset.")
    return recover


def _newest(publications: Publications, most_bytes: int) -> Publications:
    """The last of `publications`, as many as fit into a reply."""
    size = 0
    for count, publication in enumerate(reversed(publications)):
        size += len(orjson.dumps(publication, option=orjson.OPT_UTC_Z)) + 1
        if size > most_bytes:
            return publications[len(publications) - count :]
    return publications


def _joined_reply(channel: str, joined: Joined) -> dict[str, Any]:
    return {
        "channel": channel,
        "epoch": joined.epoch,
        "offset": joined.offset,
        "recovered": joined.recovered,
        "publications": joined.publications,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
