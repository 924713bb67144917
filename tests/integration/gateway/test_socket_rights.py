"""Who may use which command of the sockets: every declared command against every kind of credential."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import orjson
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from contracts.scopes import FOR_MEMBERS, Scope
from gateway.realtime.channels import KINDS, ChannelKind
from gateway.realtime.codes import CloseCode, ErrorCode
from gateway.realtime.command_table import COMMANDS
from gateway.realtime.session import Right
from support.credentials import Keys, new_key
from support.gateway_stack import Connect, OpenTalk, RunningGateway, Talk

SERVED = list(KINDS.values())
# Of `alerts` everybody has one; the others belong to somebody by their name.
OWNED = [kind for kind in SERVED if kind.argument not in ("symbol", "")]
NAMES = {"symbol": ":AAPL", "room": ":lobby", "": ""}


def arguments(command: str, channel: str) -> dict[str, Any]:
    return {"channel": channel, **({"data": {"text": "x"}} if command == "publish" else {})}


def of_channels(listener: RunningGateway) -> Iterator[tuple[str, dict[str, Any], Scope | None]]:
    """Yield each command on each kind of channel, with the scope that it needs (None: no scope does)."""
    for command in COMMANDS.values():
        for kind in SERVED if command.scope in (Right.READ, Right.WRITE) else ():
            channel = kind.name + NAMES.get(kind.argument, f":{uuid4()}")
            needed = kind.read if command.scope is Right.READ else kind.write
            yield command.name, arguments(command.name, channel), needed
    for endpoint in listener.gateway.resources.operations.offered.values():
        if endpoint.scope is not None:
            yield "rpc", {"method": endpoint.name, "data": {}}, endpoint.scope


async def let_in(client: Talk, listener: RunningGateway) -> dict[tuple[str, str], tuple[bool, Scope | None]]:
    """Return whether each command was run, and the scope that it needs, by the command and its aim."""
    found = {}
    for command, given, needed in of_channels(listener):
        answer = await client.ask(**{command: given})
        is_run = answer.get("code") != ErrorCode.PERMISSION_DENIED
        aim = str(given.get("method") or given["channel"].partition(":")[0])
        found[command, aim] = (is_run, needed)
        if command == "subscribe" and is_run:
            await client.ask(unsubscribe={"channel": given["channel"]})
    return found


def test_every_command_is_tried_or_needs_no_right(guarded_listener: RunningGateway) -> None:
    tried = {command for command, _, _ in of_channels(guarded_listener)}
    assert {name for name, command in COMMANDS.items() if command.scope is not Right.NONE} == tried
    assert {*COMMANDS} - tried == {"connect", "refresh", "unsubscribe"}


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"connect"}))
async def test_a_credential_that_is_not_good_runs_no_command(
    guarded_listener: RunningGateway, keys: Keys, connect: Connect, command: str
) -> None:
    for name, key in keys.useless.items():
        token = {} if key is None else {"token": key}
        lines = [{"id": 1, "connect": token}, {"id": 2, command: arguments(command, "chat:lobby")}]
        async with connect(guarded_listener, "/v1/realtime", headers={}) as socket:
            await socket.send(b"\n".join(orjson.dumps(line) for line in lines).decode())
            if is_over := name == "token expired":
                answer = orjson.loads(await socket.recv())
                assert (answer["id"], answer["error"]["code"]) == (1, ErrorCode.TOKEN_EXPIRED)
            with contextlib.suppress(ConnectionClosed):
                raise AssertionError(f"{name} was answered: {await socket.recv()!r}")
            assert socket.close_code == (CloseCode.BAD_REQUEST if is_over else CloseCode.INVALID_TOKEN), name


@pytest.mark.parametrize("scope", [scope for scope in Scope if scope is not Scope.ADMIN])
async def test_a_command_is_run_for_just_the_scope_that_it_needs(
    guarded_listener: RunningGateway, keys: Keys, talk: OpenTalk, scope: Scope
) -> None:
    async with talk(guarded_listener, keys.alone[scope]) as client:
        found = await let_in(client, guarded_listener)
    assert {key: is_run for key, (is_run, _) in found.items()} == {
        key: needed is scope for key, (_, needed) in found.items()
    }


@pytest.mark.parametrize("scope", [scope for scope in Scope if scope is not Scope.ADMIN])
async def test_all_scopes_but_the_needed_one_do_not_run_a_command(
    guarded_listener: RunningGateway, keys: Keys, talk: OpenTalk, scope: Scope
) -> None:
    async with talk(guarded_listener, keys.without[scope]) as client:
        found = await let_in(client, guarded_listener)
    assert {key: is_run for key, (is_run, _) in found.items()} == {
        key: needed not in (None, scope, Scope.ADMIN) for key, (_, needed) in found.items()
    }


async def test_a_member_with_every_scope_runs_no_command_of_administrators(
    guarded_listener: RunningGateway, keys: Keys, talk: OpenTalk
) -> None:
    async with talk(guarded_listener, keys.of_member_with_everything) as client:
        found = await let_in(client, guarded_listener)
    assert {key: is_run for key, (is_run, _) in found.items()} == {
        key: needed in FOR_MEMBERS for key, (_, needed) in found.items()
    }


async def test_admin_alone_runs_every_command_for_an_administrator_and_none_for_a_member(
    guarded_listener: RunningGateway, keys: Keys, talk: OpenTalk
) -> None:
    async with (
        talk(guarded_listener, keys.admin_alone) as administrator,
        talk(guarded_listener, keys.of_member_with_admin_alone) as member,
    ):
        found = await let_in(administrator, guarded_listener)
        assert {key: is_run for key, (is_run, _) in found.items()} == {
            key: needed is not None for key, (_, needed) in found.items()
        }
        assert not any(is_run for is_run, _ in (await let_in(member, guarded_listener)).values())


async def is_shown(socket: ClientConnection, line: str) -> bool:
    """Return whether a line that was sent comes back; False if an error comes instead."""
    async with asyncio.timeout(20):
        async for text in socket:
            # The lines of other tests come, too.
            if (is_error := str(text).startswith("Error: ")) or text == f"Message received: {line}":
                return not is_error
    raise AssertionError("the socket was closed")


async def lobby_of(listener: RunningGateway, connect: Connect, key: str | None) -> tuple[int, bool]:
    """Return the status of an upgrade to `/ws` with a key (101: let in), and whether its line is shown."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    line = uuid4().hex
    try:
        async with connect(listener, "/ws", headers=headers) as socket:
            await socket.send(line)
            return 101, await is_shown(socket, line)
    except InvalidStatus as refused:
        return refused.response.status_code, False


async def test_the_lobby_is_open_to_those_who_may_read_it_and_takes_lines_of_those_who_may_write(
    guarded_listener: RunningGateway, keys: Keys, connect: Connect
) -> None:
    every = frozenset(Scope) - {Scope.ADMIN}
    known: dict[str, tuple[str, frozenset[Scope]]] = {
        "administrator": (keys.admin_alone, frozenset(Scope)),
        "member with everything": (keys.of_member_with_everything, FOR_MEMBERS),
        "member with admin alone": (keys.of_member_with_admin_alone, frozenset()),
        **{f"only {scope}": (key, frozenset({scope})) for scope, key in keys.alone.items()},
        **{f"all but {scope}": (key, every - {scope}) for scope, key in keys.without.items()},
    }
    chat = KINDS["chat"]
    for name, (key, rights) in known.items():
        may_read = chat.read in rights
        expected = (101 if may_read else 403, may_read and chat.write in rights)
        assert await lobby_of(guarded_listener, connect, key) == expected, name
    for name, useless in keys.useless.items():
        assert await lobby_of(guarded_listener, connect, useless) == (401, False), name


async def of_administrator(listener: RunningGateway, kind: ChannelKind) -> str:
    """Return a channel of something that belongs to the first administrator alone."""
    if kind.name == "chat":
        room = f"own-{uuid4().hex[:8]}"
        await listener.api.post("/v1/rooms", json={"name": room, "private": True})
        return f"chat:{room}"
    path, body = {
        "batch": ("/v1/batches", {"operation": "echo", "items": [1]}),
        "task": ("/v1/tasks", {"operation": "echo", "payload": 1}),
        "email": ("/v1/emails", {"to": ["a@example.com"], "subject": "x", "text": "x"}),
    }[kind.name]
    answer = await listener.api.post(path, json=body)
    assert answer.status_code == 202, answer.text
    return f"{kind.name}:{answer.json()['id']}"


@pytest.mark.parametrize("kind", OWNED, ids=lambda kind: kind.name)
async def test_no_command_finds_an_object_of_another_owner(
    guarded_listener: RunningGateway, talk: OpenTalk, kind: ChannelKind
) -> None:
    channel = await of_administrator(guarded_listener, kind)
    owner = await guarded_listener.new_user()
    key = (await new_key(guarded_listener, *sorted(FOR_MEMBERS), user_id=owner))["key"]
    needed = {Right.READ, *([Right.WRITE] if kind.write else [])}
    # Whether there is a history is the same for every channel of a kind, and is no secret.
    tried = [c for c in COMMANDS.values() if c.scope in needed and (kind.is_ordered or c.name != "history")]
    async with talk(guarded_listener, key) as other, talk(guarded_listener) as administrator:
        for command in tried:
            given = {command.name: arguments(command.name, channel)}
            answers = [await one.ask(**given) for one in (other, administrator)]
            codes = [answer.get("code") for answer in answers]
            assert (codes[0], codes[1]) == (ErrorCode.UNKNOWN_CHANNEL, None), command.name


async def test_a_token_is_refreshed_only_with_one_of_the_same_user(
    guarded_listener: RunningGateway, keys: Keys, talk: OpenTalk
) -> None:
    async with talk(guarded_listener, keys.alone[Scope.CHAT_READ]) as client:
        for name, key in keys.useless.items():
            code = (await client.ask(refresh={"token": key or ""}))["code"]
            is_over = name == "token expired"
            assert code == (ErrorCode.TOKEN_EXPIRED if is_over else ErrorCode.UNAUTHORIZED), name
        others = await client.ask(refresh={"token": keys.of_member_with_everything})
        assert others["code"] == ErrorCode.PERMISSION_DENIED
        assert "client" in await client.ask(refresh={"token": keys.alone[Scope.CHAT_WRITE]})
