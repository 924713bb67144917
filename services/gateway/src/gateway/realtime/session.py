"""One connection of `/v1/realtime`, independent of its socket: commands in, replies and pushes out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import uuid4

import orjson
from pydantic import BaseModel, ValidationError

from chassis import logging, loop_turns, metrics, shares, validation
from chassis.errors import ServiceError, Unauthenticated
from chassis.loop_turns import LoopTurns
from gateway.http import strict_json
from gateway.http.principal import Principal
from gateway.identity.refusals import Expired
from gateway.publishing.text_frames import text_frame
from gateway.realtime import commands
from gateway.realtime.access import Access, Authenticate
from gateway.realtime.channels import Channels, channel_of
from gateway.realtime.codes import CloseCode, CloseConnection, CommandError, ErrorCode
from gateway.realtime.command_lines import read_lines
from gateway.realtime.command_rate import CommandRate, OwnerRates
from gateway.realtime.heartbeat import PING_S, Heartbeat
from gateway.realtime.presence import Presence
from gateway.realtime.send_queue import SendQueue
from gateway.realtime.subscriptions import Opened, ReplyRoom, Subscriptions

log = logging.get(__name__)

CONNECT_WITHIN_S = 10.0
_LATE_REFRESH_S = 10.0
VERSION = "tickwire"
_PING = text_frame(b"{}")
# Reading so many bytes takes a tenth of the time of a usual command, as the end of a subscription does.
_BYTES_OF_A_TENTH = 400

CallOperation = Callable[[Principal, str, Any], Awaitable[Any]]


@dataclass(frozen=True)
class CommandOutcome:
    """The answer to a command, and the subscriptions that begin after it."""

    answer: Mapping[str, Any] = field(default_factory=dict)
    opened: Sequence[Opened] = ()


class Right(StrEnum):
    """The right that a command needs in addition to a connection, as text for documents."""

    NONE = ""
    READ = "the read scope of the channel"
    WRITE = "the write scope of the channel"
    OPERATION = "the scope of the operation"


@dataclass(frozen=True)
class SocketCommand:
    """One command of the protocol: its declaration for clients and documents, and its handler."""

    name: str
    summary: str
    arguments: type[BaseModel]
    answer: type[BaseModel]
    scope: Right
    handler: Callable[[ClientSession, Any], Awaitable[CommandOutcome]]


@dataclass(frozen=True)
class Realtime:
    """The parts that all connections of this gateway share."""

    commands: Mapping[str, SocketCommand]
    channels: Channels
    presence: Presence
    authenticate: Authenticate
    call_operation: CallOperation
    owner_rates: OwnerRates
    turns: LoopTurns
    buffer_bytes: int


class ClientSession:
    """The client protocol of Centrifugo, version 2, in JSON.

    `receive` handles a frame, which may have several commands, one per line; `queue` sends replies and
    pushes. `close_connection` is called with a code and a reason when the connection must end, and `admit`
    once the client has authenticated.
    """

    def __init__(
        self,
        realtime: Realtime,
        *,
        offered: Access | None,
        write: Callable[[bytes], None],
        close_connection: Callable[[CloseCode, str], None],
        admit: Callable[[Access], None] = lambda _: None,
        address: str | None = None,
    ) -> None:
        self.id = uuid4().hex
        self.access: Access | None = None
        self.realtime = realtime
        # A client that authenticated with the upgrade counts as connected only after `connect`.
        self._offered = offered
        self._close_connection = close_connection
        self._admit = admit
        self._address = address
        self._is_closed = False
        self._rate = CommandRate(realtime.owner_rates)
        self._opened_at = time.monotonic()
        self._heartbeat = Heartbeat(self._opened_at)
        self._is_busy = False
        self._reply_room = ReplyRoom(0)
        self.queue = SendQueue(
            write,
            limit_bytes=realtime.buffer_bytes,
            on_overflow=lambda: self.close(CloseCode.SLOW),
            refresh=realtime.channels.refreshed,
        )
        self.subscriptions = Subscriptions(realtime.channels, realtime.presence, self.queue, client=self.id)

    async def receive(self, frame: str | bytes) -> None:
        """Run the commands of one frame; close the connection if the frame violates the protocol."""
        self._is_busy = True
        try:
            await self._take_turn(loop_turns.USUAL_WEIGHT + len(frame) // _BYTES_OF_A_TENTH)
            given = [] if self._is_closed else read_lines(frame)
            while given and not self._is_closed:
                # What is answered now fits into the queue with what waits there: a client that asks for more
                # than it reads is slowed down.
                await self.queue.until_fits(self.realtime.buffer_bytes // 2)
                self._reply_room = ReplyRoom(self.realtime.buffer_bytes // 2)
                # Consecutive subscriptions are made concurrently, because each may wait for a service.
                size = next((n for n, one in enumerate(given) if "subscribe" not in one[1]), len(given)) or 1
                if size > 1:
                    await self._run_together(given[:size])
                else:
                    await self._run(*given[0])
                del given[:size]
                if self._rate.is_over and not self._is_closed:
                    await self._rate.pause()
                if given and not self._is_closed:
                    await self._take_turn()
        except CloseConnection as closing:
            self.close(closing.code, closing.reason)
        finally:
            self._is_busy = False

    def tick(self, now: float) -> None:
        """Do the work due at `now` (monotonic clock): ping, or close for a missing connect, pong or token."""
        is_held_up = self._heartbeat.has_stood_still(now) or self._is_busy
        # A refresh may have arrived that waits behind what is being handled.
        grace_s = _LATE_REFRESH_S if is_held_up else 0
        if self.access is None:
            # Not while a connect may wait here: a client does not reconnect after this close.
            if not is_held_up and now - self._opened_at > CONNECT_WITHIN_S:
                self.close(CloseCode.STALE)
        elif self.access.expires_at is not None and time.time() >= self.access.expires_at + grace_s:
            self.close(CloseCode.EXPIRED)
        elif self._heartbeat.is_overdue(now, is_held_up=is_held_up or self.queue.is_paused):
            self.close(CloseCode.NO_PONG)
        elif self._heartbeat.is_due(now):
            self.queue.put(_PING)

    def change_access(self, access: Access | None) -> None:
        """Apply the current rights: end the subscriptions beyond them; None closes the connection."""
        if access is None:
            self.close(CloseCode.INVALID_TOKEN)
        else:
            self.access = access
            self.subscriptions.keep_within(access)

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close the connection with `code` and `reason`, which defaults to that of the code."""
        if not self._is_closed:
            closing = CloseConnection(code, reason)
            self.release()
            self._close_connection(closing.code, closing.reason)

    def release(self) -> None:
        """End all subscriptions and run no more commands: the connection has ended."""
        if self._is_closed:
            return
        self._is_closed = True
        self.queue.close()
        # Very many connections of one owner may end at once.
        weight = loop_turns.USUAL_WEIGHT + len(self.subscriptions)
        self.realtime.turns.run(self._payer, self.subscriptions.end_all, weight=weight)

    @property
    def _payer(self) -> str:
        """The owner, or the address of a client that has not said who it is."""
        return self._rate.owner or self._address or ""

    async def _take_turn(self, weight: int = loop_turns.USUAL_WEIGHT) -> None:
        await self.realtime.turns.take(self._payer, weight=weight)

    async def _run_together(self, given: Sequence[tuple[bytes, dict[str, Any]]]) -> None:
        async with asyncio.TaskGroup() as group:
            for number, one in enumerate(given):
                if number:
                    await self._take_turn()
                if self._is_closed:
                    break
                group.create_task(self._run(*one))

    async def _run(self, line: bytes, command: dict[str, Any]) -> None:
        """Run one command and queue its reply, or close the connection."""
        if self._is_closed:
            return
        try:
            if command:
                await self._answer(line, command)
            elif not self._heartbeat.take_pong():
                # Only the pong to a ping is free. Others have no reply that could refuse them, but may close.
                with suppress(CommandError):
                    self._rate.count(len(line))
        except CloseConnection as closing:
            self.close(closing.code, closing.reason)

    async def _answer(self, line: bytes, command: dict[str, Any]) -> None:
        """Run one command and queue its reply. Raise `CloseConnection`."""
        number = command.get("id")
        if type(number) is not int or not 0 < number <= strict_json.MOST_ID:
            raise CloseConnection(CloseCode.BAD_REQUEST, "A command needs an id: a whole number above 0.")
        try:
            self._rate.count(len(line))
            declared, arguments = self._read(line, command)
            if self.access is not None:
                shares.current.set(self.access.principal.owner_id)
            outcome = await declared.handler(self, arguments)
        except ServiceError as error:
            await self._reply(number, "error", CommandError.of(error).document())
        except CommandError as error:
            await self._reply(number, "error", error.document())
        except CloseConnection:
            raise
        except Exception as error:
            name = next((name for name in command if name != "id"), None)
            log.error("command failed", command=name, exc_info=error)
            await self._reply(number, "error", CommandError(ErrorCode.INTERNAL, is_temporary=True).document())
        else:
            await self._reply(number, declared.name, outcome.answer)
            for opened in outcome.opened:
                self.subscriptions.begin(opened)

    def _read(self, line: bytes, command: Mapping[str, Any]) -> tuple[SocketCommand, Any]:
        """Return the declared command of a line and its arguments.

        Raise `CommandError`, `ServiceError` or `CloseConnection`.
        """
        known = [name for name in command if name in self.realtime.commands]
        if len(known) > 1:
            raise CommandError(
                ErrorCode.METHOD_NOT_FOUND, f"{' and '.join(known)} are two commands; send each on its own."
            )
        if not known:
            name = next((name for name in command if name != "id"), "")[:50]
            raise CommandError(ErrorCode.METHOD_NOT_FOUND, f"There is no command {name!r}.")
        declared = self.realtime.commands[known[0]]
        if self.access is None and declared.name != "connect":
            raise CloseConnection(CloseCode.BAD_REQUEST, "The first command must be connect.")
        if self.access is not None:
            # Nothing of a connect is stored, and a client that has not said who it is gets no more time.
            strict_json.require_keepable(line, command)
        given = command[declared.name]
        try:
            return declared, declared.arguments.model_validate({} if given is None else given)
        except ValidationError as error:
            wrong = f"{declared.name}.{validation.first(error)}"
            raise CommandError(ErrorCode.BAD_REQUEST, wrong) from None

    @property
    def caller(self) -> Access:
        """The caller, known after `connect`."""
        assert self.access is not None  # commands before connect are refused
        return self.access

    async def connect(self, arguments: commands.ConnectArguments) -> CommandOutcome:
        """Authenticate with a token, or with the credential of the upgrade request.

        A second connect is refused.
        """
        if self.access is not None:
            raise CommandError(ErrorCode.BAD_REQUEST, "This connection has already been authenticated.")
        try:
            access = (
                await self.realtime.authenticate(arguments.token, self._address)
                if arguments.token
                else self._offered
            )
        except Expired as error:
            # After a permanent close, a client that wakes from sleep would never get a new token.
            raise CommandError(ErrorCode.TOKEN_EXPIRED, error.detail) from None
        except Unauthenticated as error:
            raise CloseConnection(CloseCode.INVALID_TOKEN, error.detail) from None
        if access is None:
            raise CloseConnection(CloseCode.INVALID_TOKEN, "connect needs a token.")
        owner = access.principal.owner_id
        self._rate.count_of(owner, 1 + len(arguments.subs))
        try:
            self._admit(access)
        except ServiceError as error:
            metrics.SOCKETS_REFUSED.labels(error.code).inc()
            raise
        self.access = access
        self._rate.owner = owner
        shares.current.set(owner)
        opened = await self._open_each(access, arguments.subs)
        answer = {
            "client": self.id,
            "version": VERSION,
            "node": self.realtime.presence.gateway,
            "session": self.id,
            "ping": PING_S,
            "pong": True,
            **access.expiry(),
        }
        if opened:
            answer["subs"] = {str(one.subscription.channel): one.answer for one in opened}
        return CommandOutcome(answer, opened)

    async def refresh(self, arguments: commands.RefreshArguments) -> CommandOutcome:
        """Replace the token by a new one of the same user."""
        try:
            access = await self.realtime.authenticate(arguments.token, self._address)
        except Unauthenticated as error:
            code = ErrorCode.TOKEN_EXPIRED if isinstance(error, Expired) else ErrorCode.UNAUTHORIZED
            raise CommandError(code, error.detail) from None
        if access.principal.user_id != self.caller.principal.user_id:
            raise CommandError(ErrorCode.PERMISSION_DENIED, "The token belongs to another user.")
        self.change_access(access)
        return CommandOutcome({"client": self.id, "version": VERSION, **access.expiry()})

    async def subscribe(self, arguments: commands.SubscribeArguments) -> CommandOutcome:
        """Subscribe to a channel."""
        opened = await self.subscriptions.open(
            self.caller, arguments.channel, arguments, room=self._reply_room
        )
        return CommandOutcome(opened.answer, [opened])

    async def unsubscribe(self, arguments: commands.ChannelArguments) -> CommandOutcome:
        """Unsubscribe from a channel."""
        self.subscriptions.end(str(channel_of(arguments.channel)))
        return CommandOutcome()

    async def publish(self, arguments: commands.PublishArguments) -> CommandOutcome:
        """Post to a channel that accepts publications of clients."""
        channel = channel_of(arguments.channel)
        await self.realtime.channels.publish(self.caller, channel, arguments.data, client=self.id)
        return CommandOutcome()

    async def _open_each(
        self, access: Access, subs: Mapping[str, commands.RecoverArguments]
    ) -> Sequence[Opened]:
        """Return the subscriptions to those of `subs` that can be subscribed to.

        As in Centrifugo, a channel that cannot be subscribed to is omitted from the answer.
        """
        opened: dict[str, Opened] = {}

        async def open_one(name: str, wanted: commands.RecoverArguments) -> None:
            with suppress(Exception):
                opened[name] = await self.subscriptions.open(access, name, wanted, room=self._reply_room)

        async with asyncio.TaskGroup() as group:
            for name, wanted in subs.items():
                await self._take_turn()
                group.create_task(open_one(name, wanted))
        return [opened[name] for name in subs if name in opened]

    async def _reply(self, number: int, name: str, content: Mapping[str, Any]) -> None:
        frame = text_frame(orjson.dumps({"id": number, name: content}, option=orjson.OPT_UTC_Z))
        await self.queue.until_fits(len(frame))
        self.queue.put(frame)
