"""Who may connect to `/v1/realtime` and stay: keys, tokens, and the number of connections."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from contracts.scopes import Scope
from gateway.realtime.tokens import MOST_CHANNELS
from support.event_streams import events_of
from support.gateway_stack import Connect, House, OpenTalk, RunningGateway, Talk
from support.problems import assert_problem
from support.pushes import ticks
from support.waiting import until


async def closing(socket: ClientConnection) -> int:
    """Return the code with which the gateway closes."""
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionClosed):
            async for _ in socket:
                continue
    assert socket.close_code is not None
    return socket.close_code


async def refused(
    connect: Connect, listener: RunningGateway, path: str, headers: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    with pytest.raises(InvalidStatus) as refusal:
        await connect(listener, path, headers=headers).__aenter__()
    answer = refusal.value.response
    assert answer.headers["content-type"] == "application/problem+json"
    document = orjson.loads(answer.body)
    assert answer.headers["x-request-id"] == document["instance"]
    return answer.status_code, document


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/v1/realtime", {"authorization": "Bearer nonsense"}, 401, "unauthenticated"),
        ("/v1/realtime", {"x-api-key": "tw_live_"}, 401, "unauthenticated"),
        ("/v1/realtime", {"authorization": "Bearer tw_rt_forged.signature"}, 401, "unauthenticated"),
        ("/ws", {}, 401, "unauthenticated"),
        ("/ws", {"authorization": "Bearer nonsense"}, 401, "unauthenticated"),
        ("/nowhere", {}, 404, "not-found"),
        ("/v1/me", {}, 404, "not-found"),
    ],
)
async def test_a_refused_upgrade_is_a_problem_and_neither_an_error_nor_a_stack_trace_in_the_log(
    listener: RunningGateway,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    path: str,
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    found, document = await refused(connect, listener, path, headers)
    assert (found, document["type"]) == (status, f"/problems/{code}")
    assert "Traceback" not in capsys.readouterr().err
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_no_more_connections_than_the_limit_are_opened(house: House, connect: Connect) -> None:
    listener = await house.open(most_sockets=1)
    known = {"authorization": f"Bearer {listener.admin_key}"}
    async with connect(listener, "/v1/realtime"):
        status, document = await refused(connect, listener, "/v1/realtime", known)
        assert (status, document["type"]) == (429, "/problems/too-many-at-once")
    await until(lambda: not listener.gateway.resources.connection_limit.owners)
    async with connect(listener, "/v1/realtime") as socket:
        await socket.send('{"id":1,"connect":{}}')
        assert "connect" in orjson.loads(await socket.recv())


async def test_connections_without_a_key_never_keep_out_those_with_one(
    house: House, connect: Connect, talk: OpenTalk
) -> None:
    listener = await house.open(most_sockets=2, connections_per_address=40)
    limit = listener.gateway.resources.connection_limit
    async with contextlib.AsyncExitStack() as strangers:
        for _ in range(8):
            await strangers.enter_async_context(connect(listener, "/v1/realtime", headers={}))
        assert limit.owners == {}
        async with talk(listener) as client:
            assert client.connected["ping"] == 25
            assert limit.owners == {"1": 1}


async def test_a_token_is_taken_with_the_upgrade_with_connect_or_as_a_subprotocol(
    listener: RunningGateway, connect: Connect, talk: OpenTalk
) -> None:
    async with talk(listener) as client:
        assert client.connected["client"]
    async with connect(listener, "/v1/realtime", headers={}) as socket:
        await socket.send(orjson.dumps({"id": 5, "connect": {"token": listener.admin_key}}).decode())
        answer = orjson.loads(await socket.recv())
        assert (answer["id"], answer["connect"]["ping"]) == (5, 25)
    offered = [Subprotocol("centrifuge-json"), Subprotocol(f"tickwire.key.{listener.admin_key}")]
    async with websockets.connect(
        listener.socket_url + "/v1/realtime", subprotocols=offered, proxy=None
    ) as socket:
        assert socket.subprotocol == "centrifuge-json"
        await socket.send('{"id":1,"connect":{}}')
        assert "connect" in orjson.loads(await socket.recv())


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"connect": {"token": "bad"}}, 3500),
        ({"connect": {}}, 3500),
        ({"subscribe": {"channel": "chat:lobby"}}, 3501),
    ],
)
async def test_a_client_that_does_not_authenticate_is_closed_without_reconnect(
    listener: RunningGateway, connect: Connect, frame: dict[str, Any], code: int
) -> None:
    async with connect(listener, "/v1/realtime", headers={}) as socket:
        await socket.send(orjson.dumps({"id": 1, **frame}).decode())
        assert await closing(socket) == code


@pytest.mark.parametrize("frame", ["", "nonsense", "[]", b"", '{"id":"x","connect":{}}'])
async def test_a_frame_that_is_no_command_closes_without_reconnect(
    listener: RunningGateway, connect: Connect, frame: str | bytes
) -> None:
    async with connect(listener, "/v1/realtime") as socket:
        await socket.send(frame)
        assert await closing(socket) == 3501


async def test_a_revoked_key_and_a_lost_right_take_effect_in_open_connections(
    house: House, connect: Connect, talk: OpenTalk
) -> None:
    listener = await house.open()
    user = await listener.new_user()
    revoked, kept = (
        await listener.new_key("chat:read", user_id=user),
        await listener.new_key("chat:read", user_id=user),
    )
    connections = listener.gateway.resources.connections
    headers = {"authorization": f"Bearer {revoked}"}
    async with (
        talk(listener, revoked) as first,
        talk(listener, kept) as second,
        connect(listener, "/ws", headers=headers) as line,
    ):
        await first.ask(subscribe={"channel": "chat:lobby"})
        await second.ask(subscribe={"channel": "chat:lobby"})
        await listener.database.execute(
            "UPDATE api_keys SET revoked_at = now() WHERE id = $1", revoked.split("_")[2]
        )
        await listener.database.execute(
            "UPDATE api_keys SET scopes = '{quotes:read}' WHERE id = $1", kept.split("_")[2]
        )
        await connections.check_keys()
        assert await closing(first.socket) == 3500
        assert await closing(line) == 3500
        push = await second.push()
        assert (push["channel"], push["unsubscribe"]["code"]) == ("chat:lobby", 2000)
        assert (await second.ask(subscribe={"channel": "chat:lobby"}))["code"] == 103


async def test_a_token_opens_the_channels_that_it_is_bound_to_and_no_others(
    listener: RunningGateway, house: House, talk: OpenTalk, connect: Connect
) -> None:
    symbol, other = (f"T{uuid4().hex[:6].upper()}" for _ in range(2))
    await house.publish([ticks(symbol, 1), ticks(other, 1)])
    await until(lambda: listener.gateway.resources.book.last(other))
    wanted = {"ttl_s": 60, "scopes": ["quotes:read"], "channels": [f"quotes:{symbol.lower()}"]}
    answer = await listener.api.post("/v1/realtime/tokens", json=wanted)
    assert answer.headers["cache-control"] == "no-store"
    token = answer.json()["token"]
    async with httpx.AsyncClient(base_url=listener.url, timeout=20) as browser:
        path = f"/v1/stocks/stream?symbols={symbol}&token={token}"
        async with browser.stream("GET", path) as stream:
            assert len(await events_of(stream, 1)) == 1
        assert (await browser.get(f"/v1/stocks/stream?symbols={other}&token={token}")).status_code == 403
        assert (await browser.get(f"/v1/stocks/stream?symbols={symbol}&token={token}x")).status_code == 401
        headers = {"authorization": f"Bearer {token}"}
        assert (await browser.get("/v1/me", headers=headers)).status_code == 401
        # An address is recorded on its way: a key that lives long has no place there.
        answer = await browser.get(f"/v1/stocks/stream?symbols={symbol}&token={listener.admin_key}")
        assert_problem(answer, 401, "unauthenticated")
    async with talk(listener, token) as client:
        assert client.connected["expires"]
        assert "epoch" in await client.ask(subscribe={"channel": f"quotes:{symbol}"})
        assert (await client.ask(subscribe={"channel": f"quotes:{other}"}))["code"] == 103
        assert (await client.ask(subscribe={"channel": "chat:lobby"}))["code"] == 103


async def test_a_token_for_as_many_channels_as_there_may_be_is_taken(
    listener: RunningGateway, connect: Connect
) -> None:
    names = [f"chat:{uuid4().hex}{number:032}" for number in range(MOST_CHANNELS)]
    made = await listener.api.post("/v1/realtime/tokens", json={"channels": names, "scopes": list(Scope)})
    token = made.json()["token"]
    async with connect(listener, "/v1/realtime", headers={}) as socket:
        client = Talk(socket)
        assert (await client.ask(connect={"token": token}))["expires"] is True
        assert (await client.ask(refresh={"token": token}))["expires"] is True


async def test_a_token_has_no_right_that_its_key_lacks_and_ends_with_it(
    listener: RunningGateway, connect: Connect
) -> None:
    key = await listener.new_key("chat:read")
    async with listener.client(key) as client:
        refused_token = await client.post("/v1/realtime/tokens", json={"scopes": ["emails:send"]})
        assert refused_token.status_code == 403
        token = (await client.post("/v1/realtime/tokens", json={})).json()["token"]
    await listener.database.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", key.split("_")[2])
    status, _ = await refused(connect, listener, "/v1/realtime", {"authorization": f"Bearer {token}"})
    assert status == 401
