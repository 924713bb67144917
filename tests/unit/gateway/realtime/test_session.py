"""The client protocol without a socket: commands in, replies and pushes out."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any
from uuid import uuid4

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chassis import shares
from chassis.errors import Overloaded
from contracts.scopes import Scope
from gateway.http import strict_json
from gateway.http.principal import Principal
from gateway.realtime.access import Access
from gateway.realtime.codes import CloseCode
from gateway.realtime.command_table import COMMANDS
from gateway.realtime.heartbeat import PING_S
from gateway.realtime.session import CONNECT_WITHIN_S
from support.doubles.realtime import (
    Broker,
    Client,
    Gateway,
    Rooms,
    connected,
    say,
)


async def test_the_reply_to_connect_names_the_connection_and_how_often_it_is_pinged(
    gateway: Gateway, ann: Access
) -> None:
    gateway.callers["good"] = ann
    client = Client(gateway, None)
    answer = await client.ask(connect={"token": "good", "name": "js", "version": "5", "flag": 3})
    assert (answer["ping"], answer["pong"], answer["expires"]) == (PING_S, True, False)
    assert answer["client"] == client.session.id
    assert client.session.access == ann


async def test_connect_without_a_token_is_enough_after_an_upgrade_with_one(
    gateway: Gateway, ann: Access
) -> None:
    client = Client(gateway, ann)
    assert client.session.access is None
    assert "client" in await client.ask(connect={})


async def test_a_second_connect_is_refused_and_changes_nothing(client: Client, gateway: Gateway) -> None:
    gateway.callers["other"] = Access(Principal(9, "Eve", "member", "k9", frozenset()))
    before = client.session.access
    assert (await client.ask(connect={"token": "other"}))["code"] == 107
    assert client.session.access is before


@pytest.mark.parametrize("arguments", [{}, {"token": "bad"}, {"token": ""}, {"token": None}])
async def test_a_wrong_or_missing_token_closes_for_good(gateway: Gateway, arguments: dict[str, Any]) -> None:
    client = Client(gateway, None)
    await client.session.receive(orjson.dumps({"id": 1, "connect": arguments}))
    assert client.closed[0][0] == CloseCode.INVALID_TOKEN
    assert client.frames == []


async def test_a_connection_over_the_limit_is_asked_to_try_again(gateway: Gateway, ann: Access) -> None:
    def refuse(_: Access) -> None:
        raise Overloaded("full")

    client = Client(gateway, ann, admit=refuse)
    answer = await client.ask(connect={})
    assert (answer["code"], answer["temporary"]) == (111, True)
    assert client.session.access is None


async def test_channels_named_at_connect_are_subscribed_to_at_once(gateway: Gateway, ann: Access) -> None:
    await say(gateway, ann, "one", "two")
    client = Client(gateway, ann)
    seen = {"recover": True, "epoch": "epoch-1", "offset": 1}
    answer = await client.ask(connect={"subs": {"chat:lobby": seen, "chat:nowhere": {}}})
    assert list(answer["subs"]) == ["chat:lobby"]
    assert [one["offset"] for one in answer["subs"]["chat:lobby"]["publications"]] == [2]
    await say(gateway, ann, "three")
    assert client.offsets() == [3]


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"connect"}))
async def test_before_connect_no_command_is_run(gateway: Gateway, command: str) -> None:
    client = Client(gateway, None)
    await client.session.receive(orjson.dumps({"id": 1, command: {"channel": "chat:lobby"}}))
    assert client.closed[0][0] == CloseCode.BAD_REQUEST


async def test_before_connect_no_time_is_spent_on_the_content_of_a_command(gateway: Gateway) -> None:
    client = Client(gateway, None)
    numbers = b",".join([b"1e-400"] * 9000)
    await client.session.receive(b'{"id":1,"subscribe":{"channel":"chat:lobby","x":[%b]}}' % numbers)
    # Examining the numbers for 50 ms would have found them inexact, and answered so.
    assert client.closed[0][0] == CloseCode.BAD_REQUEST
    assert client.frames == []


@pytest.mark.parametrize("line", [b'{"id":1,%b}', b'{"id": 1, %b}', b'{%b,"id":1}'])
async def test_an_ordinary_command_is_not_parsed_a_second_time(
    client: Client, monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    compare, found = strict_json.is_as_written, []

    def note(data: bytes, document: Any, **levels: int) -> bool:
        found.append(compare(data, document, **levels))
        return found[-1]

    monkeypatch.setattr(strict_json, "is_as_written", note)
    await client.session.receive(line % b'"unsubscribe":{"channel":"chat:lobby"}')
    assert client.frames == [{"id": 1, "unsubscribe": {}}]
    # Only what is not as it was written is parsed again, to find out why.
    assert found == [True]


async def test_an_unknown_command_is_named_without_its_id(client: Client) -> None:
    assert "'dance'" in (await client.ask(dance={}))["message"]
    assert "''" in (await client.ask())["message"]


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"nonsense",
        b"{",
        b"\xff\xfe",
        b'{"id":1,"ping":NaN}',
        b"[]",
        b"7",
        b"null",
        b'{"connect":{}}',
        b'{"id":"1","unsubscribe":{}}',
        b'{"id":0,"unsubscribe":{}}',
        b'{"id":true}',
        b'{"id":-1}',
        b"{}\n" * 513,
        b'{"id":1,"unsubscribe":{"channel":"chat:lobby"}}\nnonsense',
    ],
)
async def test_a_frame_that_is_not_of_the_protocol_closes_for_good(client: Client, frame: bytes) -> None:
    await client.session.receive(frame)
    assert client.closed[0][0] == CloseCode.BAD_REQUEST


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"dance": {}}, 104),
        ({}, 104),
        ({"subscribe": {"channel": "chat:lobby"}, "unsubscribe": {"channel": "chat:lobby"}}, 104),
        ({"subscribe": {}}, 107),
        ({"subscribe": []}, 107),
        ({"subscribe": {"channel": 7}}, 107),
        ({"subscribe": {"channel": ""}}, 107),
        ({"subscribe": {"channel": "moon:x"}}, 102),
        ({"subscribe": {"channel": "chat:nowhere"}}, 102),
        ({"subscribe": {"channel": f"batch:{uuid4()}"}}, 102),
        ({"subscribe": {"channel": "chat:lobby", "recover": 1}}, 107),
        ({"subscribe": {"channel": "chat:lobby", "offset": -1}}, 107),
        ({"subscribe": {"channel": "chat:lobby", "data": {"conflate_ms": 60_001}}}, 107),
        ({"subscribe": {"channel": "chat:lobby", "data": {"conflate_ms": "250"}}}, 107),
        ({"subscribe": {"channel": "chat:lobby", "data": {"conflate_ms": True}}}, 107),
        ({"publish": {"channel": "chat:lobby", "data": {"text": ""}}}, 107),
        ({"publish": {"channel": "chat:lobby", "data": {"text": "a\0b"}}}, 107),
        ({"publish": {"channel": "quotes:AAPL", "data": {"text": "x"}}}, 103),
        ({"history": {"channel": "quotes:AAPL", "limit": 1}}, 108),
        ({"history": {"channel": "chat:lobby", "limit": -2}}, 107),
        ({"refresh": {}}, 107),
        ({"refresh": {"token": "bad"}}, 101),
        ({"rpc": {"method": "getMe", "data": {}}}, 104),
    ],
)
async def test_a_command_that_cannot_be_run_has_its_error_and_the_connection_lives(
    client: Client, command: dict[str, Any], code: int
) -> None:
    error = await client.ask(**command)
    assert (error["code"], error["temporary"]) == (code, False)
    assert error["message"]
    assert await client.ask(unsubscribe={"channel": "chat:lobby"}) == {}


async def test_unknown_fields_are_ignored(client: Client) -> None:
    answer = await client.ask(
        subscribe={"channel": "chat:lobby", "flag": 1, "positioned": True, "delta": "fossil", "tf": {}}
    )
    assert answer["recoverable"]


async def test_a_frame_may_hold_several_commands_and_pongs(gateway: Gateway, ann: Access) -> None:
    client = Client(gateway, ann)
    lines = [
        {"id": 1, "connect": {}},
        {"id": 2, "subscribe": {"channel": "chat:lobby"}},
        {},
        {"id": 3, "publish": {"channel": "chat:lobby", "data": {"text": "hi"}}},
        {"id": 4, "unsubscribe": {"channel": "chat:lobby"}},
    ]
    await client.session.receive(b"\n".join(orjson.dumps(line) for line in lines))
    names = [next(name for name in frame if name != "id") for frame in client.frames]
    assert names == ["connect", "subscribe", "push", "publish", "unsubscribe"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=5,
)
NAMES = [
    "channel",
    "data",
    "token",
    "recover",
    "epoch",
    "offset",
    "limit",
    "since",
    "reverse",
    "method",
    "subs",
]
ARGUMENTS = st.dictionaries(
    st.sampled_from(NAMES), JSON | st.sampled_from(["chat:lobby", "quotes:AAPL", "batch:x"]), max_size=4
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from([*COMMANDS, "dance"]), ARGUMENTS | JSON)
async def test_any_arguments_get_an_answer_of_the_declared_shape_or_close(
    command: str, arguments: Any
) -> None:
    scopes = frozenset(Scope)
    client = await connected(Gateway(Rooms(), Broker()), Access(Principal(7, "Ann", "admin", "k7", scopes)))
    client.frames.clear()
    await client.session.receive(orjson.dumps({"id": 9, command: arguments}))
    replies = [frame for frame in client.frames if frame.get("id") == 9]
    assert client.closed or len(replies) == 1
    for reply in replies:
        if "error" in reply:
            assert reply["error"]["code"] != 100
        else:
            COMMANDS[command].answer.model_validate(reply[command])


async def test_more_commands_than_the_rate_are_refused_and_then_close(client: Client) -> None:
    line = b'{"id":1,"unsubscribe":{"channel":"chat:lobby"}}'
    for _ in range(3):
        await client.session.receive(b"\n".join([line] * 200))
    codes = [frame["error"]["code"] for frame in client.frames if "error" in frame]
    assert set(codes) == {111}
    assert not client.closed
    for _ in range(2):
        await client.session.receive(b"\n".join([line] * 200))
    assert client.closed[0][0] == CloseCode.TOO_MANY_REQUESTS
    assert client.closed[0][0] < 3500


async def test_empty_commands_count_towards_the_rate_even_before_connect(gateway: Gateway) -> None:
    client = Client(gateway, None)
    frame = b"\n".join([b"{}"] * 400)
    await client.session.receive(frame)
    assert not client.closed
    for _ in range(2):
        await client.session.receive(frame)
    assert client.closed[0][0] == CloseCode.TOO_MANY_REQUESTS


async def test_the_pong_to_a_ping_is_never_over_the_rate(client: Client) -> None:
    started = time.monotonic()
    # As many pings as close a connection when nobody has asked for their answers.
    for number in range(1, 1001):
        client.session.tick(started + PING_S * number)
        await client.session.receive(b"{}")
    assert not client.closed
    assert await client.ask(unsubscribe={"channel": "chat:lobby"}) == {}


async def test_a_frame_of_empty_commands_starts_no_tasks(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a task was started")

    with monkeypatch.context() as patched:
        patched.setattr(asyncio.get_running_loop(), "create_task", refuse)
        await client.session.receive(b"\n".join([b"{}"] * 300))
    assert not client.closed


async def test_a_long_command_counts_as_several_towards_the_rate(client: Client) -> None:
    command = {"channel": "chat:lobby", "padding": "x" * 60_000}
    line = orjson.dumps({"id": 1, "unsubscribe": command})
    for _ in range(30):
        await client.session.receive(line)
    codes = [frame["error"]["code"] for frame in client.frames if "error" in frame]
    assert set(codes) == {111}
    assert len(codes) < 10
    for _ in range(30):
        await client.session.receive(line)
    assert client.closed[0][0] == CloseCode.TOO_MANY_REQUESTS


async def test_a_token_is_refreshed_for_its_own_user_only(gateway: Gateway, ann: Access) -> None:
    client = await connected(gateway, replace(ann, expires_at=time.time() + 5))
    gateway.callers["new"] = replace(ann, expires_at=time.time() + 600)
    gateway.callers["eve"] = Access(Principal(9, "Eve", "member", "k9", frozenset()))
    assert (await client.ask(refresh={"token": "eve"}))["code"] == 103
    answer = await client.ask(refresh={"token": "new"})
    assert answer["expires"]
    # Client libraries ask when this is over.
    assert 588 <= answer["ttl"] <= 590
    client.session.tick(time.monotonic())
    assert client.closed == []


async def test_a_bounded_token_cannot_call_operations(gateway: Gateway, ann: Access) -> None:
    client = await connected(gateway, replace(ann, channels=frozenset({"chat:lobby"})))
    assert (await client.ask(rpc={"method": "getMe"}))["code"] == 103


async def test_an_operation_is_called_with_the_rights_of_the_caller(gateway: Gateway, ann: Access) -> None:
    async def call(principal: Principal, name: str, params: Any) -> Any:
        return [principal.user_name, name, params, shares.current.get()]

    client = Client(gateway, ann, realtime=replace(gateway.realtime, call_operation=call))
    await client.ask(connect={})
    answer = await client.ask(rpc={"method": "getQuote", "data": {"symbol": "A"}})
    assert answer == {"data": ["Ann", "getQuote", {"symbol": "A"}, ann.principal.owner_id]}


async def test_a_connection_that_does_not_authenticate_is_closed(gateway: Gateway) -> None:
    client = Client(gateway, None)
    client.session.tick(time.monotonic() + CONNECT_WITHIN_S - 1)
    assert client.closed == []
    client.session.tick(time.monotonic() + CONNECT_WITHIN_S + 1)
    assert client.closed[0][0] == CloseCode.STALE


async def test_a_connection_ends_with_its_token(gateway: Gateway, ann: Access) -> None:
    client = await connected(gateway, replace(ann, expires_at=time.time() - 1))
    client.session.tick(time.monotonic())
    assert client.closed[0][0] == CloseCode.EXPIRED


@pytest.mark.parametrize(("left", "told"), [(10.9, 7), (60.5, 50), (3600.5, 3590), (0.5, 1), (-5, 1)])
def test_a_client_is_told_to_refresh_its_token_before_it_ends(ann: Access, left: float, told: int) -> None:
    assert replace(ann, expires_at=time.time() + left).expiry() == {"expires": True, "ttl": told}


@pytest.mark.parametrize(("late_s", "closed"), [(5, []), (11, [CloseCode.EXPIRED])])
async def test_a_refresh_that_is_here_is_not_late(
    gateway: Gateway, ann: Access, late_s: float, closed: list[CloseCode]
) -> None:
    known = asyncio.Event()

    async def authenticate(*_: object) -> Access:
        await known.wait()
        return ann

    realtime = replace(gateway.realtime, authenticate=authenticate)
    client = Client(gateway, replace(ann, expires_at=time.time() - late_s), realtime=realtime)
    await client.ask(connect={})
    refreshing = asyncio.create_task(client.session.receive('{"id":2,"refresh":{"token":"new"}}'))
    await asyncio.sleep(0)
    client.session.tick(time.monotonic())
    known.set()
    await refreshing
    client.session.tick(time.monotonic())
    assert [code for code, _ in client.closed] == closed


async def test_while_the_database_is_away_a_command_is_a_temporary_error(
    client: Client, rooms: Rooms
) -> None:
    rooms.is_away = True
    answer = await client.ask(publish={"channel": "chat:lobby", "data": {"text": "x"}})
    assert (answer["code"], answer["temporary"]) == (100, True)
    rooms.is_away = False
    assert await client.ask(publish={"channel": "chat:lobby", "data": {"text": "x"}}) == {}


def test_every_command_is_declared_once_with_all_that_its_documentation_needs() -> None:
    for name, command in COMMANDS.items():
        assert (command.name, command.summary[-1]) == (name, ".")
        assert command.arguments.model_json_schema()
        assert command.answer.model_json_schema()
