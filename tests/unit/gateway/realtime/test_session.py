"""The protocol of `/v1/realtime`, frame by frame, without a socket."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chassis.errors import Unauthenticated
from contracts.scopes import Scope
from gateway.http.principal import Principal
from gateway.realtime import session as module
from gateway.realtime.session import CloseConnection, Session
from support.doubles.realtime import Exchange, Gateway, Rooms

ANN = Principal(
    7, "Ann", "member", "k7", frozenset({Scope("quotes:read"), Scope("chat:write"), Scope("batches:read")})
)


async def authenticate(text: str | None) -> Principal:
    if text != "good":
        raise Unauthenticated("Send your key.")
    return ANN


class Client:
    """A connection: what it says, and what comes back."""

    def __init__(
        self, gateway: Gateway, *, principal: Principal | None = ANN, buffer_bytes: int = 1 << 20
    ) -> None:
        self.session = Session(gateway.channels, authenticate, principal=principal, buffer_bytes=buffer_bytes)
        self._number = 0

    async def ask(self, **command: Any) -> Any:
        """The answer to a command: what is under its name, or the error."""
        self._number += 1
        await self.session.receive(orjson.dumps({"id": self._number, **command}))
        frames = await self.frames()
        [answer] = [frame for frame in frames if frame.get("id") == self._number]
        self.others = [frame for frame in frames if frame is not answer]
        ((name, content),) = ((name, content) for name, content in answer.items() if name != "id")
        assert name in (*command, "error")
        return content

    async def frames(self) -> list[Any]:
        """What can be taken at this moment."""
        found: list[Any] = []
        while True:
            task = asyncio.create_task(self.session.mailbox.take())
            for _ in range(4):
                await asyncio.sleep(0)
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                return found
            taken = task.result()
            if not taken:
                return found
            found += [orjson.loads(frame) for frame in taken]

    async def pushes(self) -> list[Any]:
        return [frame["push"] for frame in await self.frames()]


@pytest.fixture
def client(gateway: Gateway) -> Client:
    return Client(gateway)


def quote(symbol: str, offset: int) -> dict[str, Any]:
    return {"symbol": symbol, "as_of": "2026-01-01T00:00:00Z", "stream": {"epoch": "feed", "offset": offset}}


async def test_connect_tells_who_and_how_often_life_is_shown(gateway: Gateway) -> None:
    client = Client(gateway, principal=None)
    assert client.session.principal is None
    answer = await client.ask(connect={"token": "good"})
    assert (answer["client"], answer["ping_s"], answer["session"]) == ("7", 25, client.session.id)
    assert client.session.principal == ANN


async def test_connect_without_a_token_is_enough_after_an_upgrade_with_one(client: Client) -> None:
    assert (await client.ask(connect={}))["client"] == "7"


@pytest.mark.parametrize("arguments", [{}, {"token": "bad"}, {"token": ""}, {"token": None}])
async def test_a_wrong_or_missing_token_closes_for_good(gateway: Gateway, arguments: dict[str, Any]) -> None:
    client = Client(gateway, principal=None)
    with pytest.raises(CloseConnection) as closed:
        await client.ask(connect=arguments)
    assert closed.value.code == 3500


@pytest.mark.parametrize("token", [5, True, [], {}, 1.5])
async def test_a_token_that_is_no_text_is_an_error(gateway: Gateway, token: Any) -> None:
    client = Client(gateway, principal=None)
    assert (await client.ask(connect={"token": token}))["code"] == "invalid-input"


@pytest.mark.parametrize("command", ["subscribe", "publish", "history", "presence", "unsubscribe", "dance"])
async def test_before_connect_only_a_ping_is_answered(gateway: Gateway, command: str) -> None:
    client = Client(gateway, principal=None)
    assert await client.ask(ping={}) == {}
    with pytest.raises(CloseConnection) as closed:
        await client.ask(**{command: {"channel": "chat:lobby"}})
    assert closed.value.code == 3500


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", "malformed-input"),
        (b"nonsense", "malformed-input"),
        (b"{", "malformed-input"),
        (b"\xff\xfe", "malformed-input"),
        (b'{"id":1,"ping":NaN}', "malformed-input"),
        (b"[]", "invalid-input"),
        (b"7", "invalid-input"),
        (b"null", "invalid-input"),
        (b"{}", "invalid-input"),
        (b'{"id":1}', "invalid-input"),
        (b'{"id":1,"ping":{},"history":{}}', "invalid-input"),
        (b'{"id":1,"ping":[]}', "invalid-input"),
        (b'{"id":1,"dance":{}}', "invalid-input"),
        (b'{"id":1,"ping":{"x":"\\u0000"}}', "invalid-input"),
        (b'{"id":1,"ping":{"x":' + b"[" * 90 + b"]" * 90 + b"}}", "invalid-input"),
    ],
)
async def test_a_frame_that_is_not_understood_is_an_error_and_no_end(
    client: Client, frame: bytes, code: str
) -> None:
    await client.session.receive(frame)
    [answer] = await client.frames()
    assert answer["error"]["code"] == code
    assert answer["id"] == (1 if b'"id":1' in frame and code == "invalid-input" else None)
    assert await client.ask(ping={}) == {}


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
ARGUMENTS = st.dictionaries(
    st.sampled_from(["channel", "data", "token", "recover", "conflate_ms", "limit", "before", "x"]),
    JSON | st.sampled_from(["chat:lobby", "quotes:AAPL", "batch:x"]),
    max_size=4,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(
        ["connect", "subscribe", "unsubscribe", "publish", "presence", "history", "ping", "dance"]
    ),
    ARGUMENTS,
)
async def test_any_arguments_get_an_answer_or_close_and_never_another_error(
    command: str, arguments: dict[str, Any]
) -> None:
    client = Client(Gateway(Rooms(), Exchange()))
    codes: list[int] = []
    try:
        await client.session.receive(orjson.dumps({"id": 9, command: arguments}))
    except CloseConnection as closed:
        codes.append(closed.code)
    frames = await client.frames()
    assert codes == [3500] or frames[0]["id"] == 9


async def test_the_id_of_a_command_comes_back_whatever_it_is(client: Client) -> None:
    for given_id in (0, "text", None, [1], {"a": 1}, 1.5):
        await client.session.receive(orjson.dumps({"id": given_id, "ping": {}}))
        assert await client.frames() == [{"id": given_id, "ping": {}}]


async def test_a_frame_over_64_kib_closes(client: Client) -> None:
    with pytest.raises(CloseConnection) as closed:
        await client.session.receive("é" * 40_000)
    assert closed.value.code == 1009


async def test_more_than_fifty_commands_a_second_close(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("gateway.realtime.session.time.monotonic", lambda: now)
    for _ in range(50):
        await client.session.receive(b'{"id":1,"ping":{}}')
    now += 1
    for _ in range(50):
        await client.session.receive(b'{"id":1,"ping":{}}')
    with pytest.raises(CloseConnection) as closed:
        await client.session.receive(b'{"id":1,"ping":{}}')
    assert closed.value.code == 3502


async def test_a_subscriber_gets_what_is_published_afterwards(client: Client) -> None:
    joined = await client.ask(subscribe={"channel": "chat:lobby"})
    assert joined == {
        "channel": "chat:lobby",
        "epoch": "epoch-1",
        "offset": 0,
        "recovered": False,
        "publications": [],
    }
    assert await client.ask(publish={"channel": "chat:lobby", "data": {"text": "hi"}}) == {"offset": 1}
    pushed = [frame["push"] for frame in client.others] + await client.pushes()
    assert [(push["offset"], push["data"]["text"]) for push in pushed] == [(1, "hi")]


async def test_nothing_is_lost_or_doubled_between_recovery_and_pushes(
    gateway: Gateway, client: Client
) -> None:
    for number in range(3):
        await gateway.channels.post(ANN, "chat:lobby", {"text": str(number)})
    posting = asyncio.gather(
        *(gateway.channels.post(ANN, "chat:lobby", {"text": f"late {number}"}) for number in range(20))
    )
    joined = await client.ask(
        subscribe={"channel": "chat:lobby", "recover": {"epoch": "epoch-1", "offset": 1}}
    )
    await posting
    pushed = [frame["push"] for frame in client.others] + await client.pushes()
    offsets = [publication["offset"] for publication in [*joined["publications"], *pushed]]
    assert joined["recovered"]
    assert offsets == list(range(2, 24))


async def test_the_reply_comes_before_the_pushes(gateway: Gateway, client: Client) -> None:
    posting = asyncio.gather(
        *(gateway.channels.post(ANN, "chat:lobby", {"text": str(number)}) for number in range(5))
    )
    await client.session.receive(b'{"id":1,"subscribe":{"channel":"chat:lobby"}}')
    await posting
    frames = await client.frames()
    assert frames[0]["id"] == 1
    assert [frame["push"]["offset"] for frame in frames[1:]] == list(
        range(frames[0]["subscribe"]["offset"] + 1, 6)
    )


async def test_after_unsubscribing_nothing_comes(gateway: Gateway, client: Client) -> None:
    await client.ask(subscribe={"channel": "chat:lobby"})
    assert await client.ask(unsubscribe={"channel": "chat:lobby"}) == {"channel": "chat:lobby"}
    await gateway.channels.post(ANN, "chat:lobby", {"text": "x"})
    assert await client.frames() == []
    assert not gateway.hub.has_listeners("chat:lobby")
    assert (await client.ask(unsubscribe={"channel": "chat:lobby"}))["code"] == "invalid-input"


async def test_a_channel_is_subscribed_to_once_however_it_is_written(
    gateway: Gateway, client: Client
) -> None:
    gateway.book.push([quote("AAPL", 1)])
    await client.ask(subscribe={"channel": "quotes:AAPL"})
    assert (await client.ask(subscribe={"channel": "quotes:aapl"}))["code"] == "conflict"
    assert gateway.hub.counts() == {"quotes:AAPL": 1}


async def test_a_subscription_that_is_refused_leaves_nothing(gateway: Gateway, client: Client) -> None:
    for channel in ("quotes:NOPE", "chat:nowhere", "batch:nonsense", "moon:x"):
        assert "code" in await client.ask(subscribe={"channel": channel})
    assert gateway.hub.counts() == {}


async def test_two_hundred_subscriptions_are_the_most(
    gateway: Gateway, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_COMMANDS_PER_S", 1000)
    gateway.book.push([quote(f"S{number}", 1) for number in range(201)])
    for number in range(200):
        await client.ask(subscribe={"channel": f"quotes:S{number}"})
    assert (await client.ask(subscribe={"channel": "quotes:S200"}))["code"] == "conflict"
    client.session.close()
    assert gateway.hub.counts() == {}


async def test_quotes_are_conflated_and_chat_is_not(gateway: Gateway, client: Client) -> None:
    gateway.book.push([quote("AAPL", 1)])
    await client.ask(subscribe={"channel": "quotes:AAPL"})
    await client.ask(subscribe={"channel": "chat:lobby"})
    for number in range(2, 12):
        gateway.book.push([quote("AAPL", number)])
        await gateway.channels.post(ANN, "chat:lobby", {"text": str(number)})
    pushed = await client.pushes()
    chat = [push["offset"] for push in pushed if push["channel"] == "chat:lobby"]
    quotes = [push for push in pushed if push["channel"] == "quotes:AAPL"]
    assert chat == list(range(1, 11))
    assert quotes[-1]["offset"] == 11
    assert sum(1 + push.get("skipped", 0) for push in quotes) == 10


async def test_conflate_ms_keeps_quotes_back(gateway: Gateway, client: Client) -> None:
    gateway.book.push([quote("AAPL", 1)])
    await client.ask(subscribe={"channel": "quotes:AAPL", "conflate_ms": 60_000})
    gateway.book.push([quote("AAPL", 2)])
    assert [push["offset"] for push in await client.pushes()] == [2]
    gateway.book.push([quote("AAPL", 3)])
    assert await client.pushes() == []


@pytest.mark.parametrize("wrong", [-1, 60_001, "250", 1.5, None, []])
async def test_conflate_ms_is_a_whole_number_up_to_a_minute(client: Client, wrong: Any) -> None:
    answer = await client.ask(subscribe={"channel": "chat:lobby", "conflate_ms": wrong})
    assert answer["code"] == "invalid-input"


async def test_presence_counts_the_connections_of_this_gateway(gateway: Gateway, client: Client) -> None:
    other = Client(gateway)
    await client.ask(subscribe={"channel": "chat:lobby"})
    await other.ask(subscribe={"channel": "chat:lobby"})
    assert (await client.ask(presence={"channel": "chat:lobby"}))["connections"] == 2
    other.session.close()
    assert (await client.ask(presence={"channel": "chat:lobby"}))["connections"] == 1


async def test_history_gives_the_last_and_then_the_ones_before(gateway: Gateway, client: Client) -> None:
    for number in range(1, 6):
        await gateway.channels.post(ANN, "chat:lobby", {"text": str(number)})
    last = await client.ask(history={"channel": "chat:lobby", "limit": 2})
    before = await client.ask(history={"channel": "chat:lobby", "limit": 2, "before": 4})
    assert [p["offset"] for p in last["publications"]] == [4, 5]
    assert [p["offset"] for p in before["publications"]] == [2, 3]


@pytest.mark.parametrize(
    "wrong",
    [{"limit": 0}, {"limit": 301}, {"limit": "5"}, {"before": -1}, {"before": 2**63}, {"before": "x"}],
)
async def test_history_refuses_what_is_out_of_bounds(client: Client, wrong: dict[str, Any]) -> None:
    assert (await client.ask(history={"channel": "chat:lobby", **wrong}))["code"] == "invalid-input"


async def test_a_reply_never_fills_the_mailbox_by_itself(gateway: Gateway) -> None:
    for _ in range(100):
        await gateway.channels.post(ANN, "chat:lobby", {"text": "x" * 4000})
    client = Client(gateway, buffer_bytes=65_536)
    history = await client.ask(history={"channel": "chat:lobby", "limit": 300})
    assert [p["offset"] for p in history["publications"]] == list(range(94, 101))[
        -len(history["publications"]) :
    ]
    assert history["publications"]
    joined = await client.ask(
        subscribe={"channel": "chat:lobby", "recover": {"epoch": "epoch-1", "offset": 1}}
    )
    assert (joined["recovered"], joined["publications"], joined["offset"]) == (False, [], 100)
    assert not client.session.mailbox.overflowed


async def test_a_reader_that_is_too_slow_overflows(gateway: Gateway) -> None:
    client = Client(gateway, buffer_bytes=65_536)
    await client.ask(subscribe={"channel": "chat:lobby"})
    for _ in range(30):
        await gateway.channels.post(ANN, "chat:lobby", {"text": "x" * 4000})
    assert client.session.mailbox.overflowed


async def test_a_silent_connection_shows_life(client: Client) -> None:
    client.session.alive()
    [frame] = await client.frames()
    assert frame["alive"]["server_time"].endswith("Z")


async def test_while_the_database_is_away_a_command_is_an_error_and_the_connection_lives(
    client: Client, rooms: Rooms
) -> None:
    rooms.is_away = True
    answer = await client.ask(publish={"channel": "chat:lobby", "data": {"text": "x"}})
    assert answer["code"] == "database-unavailable"
    rooms.is_away = False
    assert await client.ask(publish={"channel": "chat:lobby", "data": {"text": "x"}}) == {"offset": 1}
