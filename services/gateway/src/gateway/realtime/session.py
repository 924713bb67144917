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
from gateway.identity.keys import Principal
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


class CloseConnection(Exception):
    """The connection is to be closed with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


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
        self._window = 0.0
        self._count = 0
        self._commands: dict[str, Callable[[Principal, Mapping[str, Any]], Awaitable[dict[str, Any]]]] = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "publish": self._publish,
            "presence": self._presence,
            "history": self._history,
        }

    @property
    def is_connected(self) -> bool:
        """Whether the caller is known."""
        return self._principal is not None

    async def receive(self, frame: str | bytes) -> None:
        """Take one frame; its answer, or its error, goes to the mailbox. Raises `CloseConnection`."""
        self._limit_rate()
        number: Any = None
        try:
            command = _parse(frame)
            number = command.pop("id", None)
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
        if "token" in arguments or self._principal is None:
            self._principal = await self._authenticate(arguments.get("token"))
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
        return _joined_reply(channel, joined)

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
        if before is not None and not isinstance(before, int):
            raise InvalidInput("before is an offset.")
        publications = await self._channels.history(channel, before=before, limit=limit)
        return {"channel": channel, "publications": publications}

    def _reply(self, document: dict[str, Any]) -> None:
        self.mailbox.put(orjson.dumps(document, option=orjson.OPT_UTC_Z))

    def _limit_rate(self) -> None:
        now = time.monotonic()
        if now - self._window >= 1:
            self._window, self._count = now, 0
        self._count += 1
        if self._count > _MOST_COMMANDS_PER_S:
            raise CloseConnection(TOO_FAST, f"More than {_MOST_COMMANDS_PER_S} commands a second.")


def _parse(frame: str | bytes) -> dict[str, Any]:
    if len(frame) > _LARGEST_FRAME:
        raise CloseConnection(1009, f"A frame has at most {_LARGEST_FRAME} bytes.")
    try:
        command = orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"The frame is not JSON: {error}") from None
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
