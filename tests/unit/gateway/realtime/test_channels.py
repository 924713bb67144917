"""The channels that may be subscribed to, by whom, and the state that a subscriber gets at once."""

from __future__ import annotations

import contextlib
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import Forbidden, NotFound
from contracts.scopes import Scope
from gateway.publishing.positions import ChannelPosition
from gateway.realtime.access import Access
from gateway.realtime.channels import KINDS, MOST_RECOVERED, channel_of
from gateway.realtime.codes import CommandError, ErrorCode
from support.doubles.realtime import Broker, Gateway

LOBBY = channel_of("chat:lobby")


def quote(symbol: str, offset: int) -> dict[str, Any]:
    return {"symbol": symbol, "as_of": "2026-01-01T00:00:00Z", "stream": {"epoch": "feed", "offset": offset}}


async def say(gateway: Gateway, ann: Access, count: int) -> None:
    for number in range(1, count + 1):
        await gateway.channels.publish(ann, LOBBY, {"text": str(number)})


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("quotes:aapl", "quotes:AAPL"),
        ("bars:brk.b", "bars:BRK.B"),
        ("alerts", "alerts"),
        ("chat:lobby", "chat:lobby"),
        ("batch:018F0000-0000-7000-8000-00000000000A", "batch:018f0000-0000-7000-8000-00000000000a"),
        ("task:{018f00000000700080000000000000ff}", "task:018f0000-0000-7000-8000-0000000000ff"),
        ("email:018f0000000070008000000000000001", "email:018f0000-0000-7000-8000-000000000001"),
    ],
)
def test_a_channel_has_one_spelling(text: str, spelled: str) -> None:
    assert str(channel_of(text)) == spelled


@given(st.text(max_size=40) | st.builds("{}:{}".format, st.sampled_from(sorted(KINDS)), st.text()))
def test_any_text_is_a_channel_or_an_unknown_one(text: str) -> None:
    with contextlib.suppress(CommandError):
        channel = channel_of(text)
        assert channel_of(str(channel)) == channel
        assert len(str(channel)) <= 72


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quotes",
        "quotes:",
        "moon:x",
        "chat:No Spaces",
        "chat:lobby\n",
        "chat:" + "x" * 65,
        "batch:nonsense",
        "alerts:7",
        "alerts:",
        "ALERTS",
    ],
)
def test_a_channel_that_is_not_served_is_unknown(text: str) -> None:
    with pytest.raises(CommandError) as error:
        channel_of(text)
    assert error.value.code == ErrorCode.UNKNOWN_CHANNEL


async def test_a_quote_channel_begins_with_the_last_quote(gateway: Gateway, ann: Access) -> None:
    gateway.book.push([quote("AAPL", 5)])
    joined = await gateway.channels.join(ann, channel_of("quotes:aapl"), None)
    assert joined.position == ChannelPosition("feed", 5)
    assert joined.publications[0].channel == "quotes:AAPL"
    assert joined.publications[0].data["state"] == "live"


async def test_before_the_first_tick_the_quote_is_asked_for(gateway: Gateway, ann: Access) -> None:
    gateway.quotes["MSFT"] = {**quote("MSFT", 0), "stream": None}
    joined = await gateway.channels.join(ann, channel_of("quotes:MSFT"), None)
    assert joined.position.offset == 0
    with pytest.raises(NotFound):
        await gateway.channels.join(ann, channel_of("quotes:NOPE"), None)


@pytest.mark.parametrize("kind", ["batch", "task", "email"])
async def test_work_is_seen_by_its_owner_only(gateway: Gateway, ann: Access, kind: str) -> None:
    mine, other = uuid4(), uuid4()
    gateway.work[mine] = {"owner_id": "7", "status": "running"}
    gateway.work[other] = {"owner_id": "9", "status": "running"}
    joined = await gateway.channels.join(ann, channel_of(f"{kind}:{mine}"), None)
    assert joined.publications[0].data["status"] == "running"
    for id_ in (other, uuid4()):
        with pytest.raises(NotFound):
            await gateway.channels.join(ann, channel_of(f"{kind}:{id_}"), None)


@pytest.mark.parametrize("kind", KINDS.values())
async def test_each_kind_of_channel_needs_its_scope(gateway: Gateway, nobody: Access, kind: Any) -> None:
    argument = {"symbol": ":AAPL", "room": ":lobby", "id": f":{uuid4()}", "": ""}[kind.argument]
    with pytest.raises(Forbidden) as error:
        await gateway.channels.join(nobody, channel_of(kind.name + argument), None)
    assert kind.read in error.value.detail
    with pytest.raises((Forbidden, CommandError)):
        await gateway.channels.history(
            nobody, channel_of(kind.name + argument), limit=1, since=None, reverse=False
        )


async def test_only_chat_takes_messages_and_only_with_the_scope(
    gateway: Gateway, ann: Access, nobody: Access
) -> None:
    assert (await gateway.channels.publish(ann, LOBBY, {"text": "x"})).offset == 1
    with pytest.raises(Forbidden):
        await gateway.channels.publish(nobody, LOBBY, {"text": "x"})
    with pytest.raises(CommandError) as error:
        await gateway.channels.publish(ann, channel_of("quotes:AAPL"), {"text": "x"})
    assert error.value.code == ErrorCode.PERMISSION_DENIED


async def test_a_token_may_do_no_more_than_it_is_bound_to(gateway: Gateway, ann: Access) -> None:
    channels = Access(ann.principal, channels=frozenset({"chat:lobby"}))
    scopes = Access(ann.principal, scopes=frozenset({Scope.CHAT_READ}))
    await gateway.channels.join(channels, LOBBY, None)
    await gateway.channels.join(scopes, LOBBY, None)
    with pytest.raises(Forbidden):
        await gateway.channels.join(channels, channel_of("quotes:AAPL"), None)
    with pytest.raises(Forbidden):
        await gateway.channels.publish(scopes, LOBBY, {"text": "x"})


@pytest.mark.parametrize(("since", "recovered"), [(0, [1, 2, 3]), (2, [3]), (3, [])])
async def test_messages_missed_since_a_position_are_recovered(
    gateway: Gateway, ann: Access, since: int, recovered: list[int]
) -> None:
    await say(gateway, ann, 3)
    joined = await gateway.channels.join(ann, LOBBY, ChannelPosition("epoch-1", since))
    assert joined.is_recovered
    assert [one.position.offset for one in joined.publications] == recovered
    assert joined.position == ChannelPosition("epoch-1", 3)


async def test_a_client_of_a_gateway_that_is_ahead_recovers_all_the_same(
    gateway: Gateway, other_gateway: Gateway, exchange: Broker, ann: Access
) -> None:
    await other_gateway.chat.follow("lobby", ann.principal)
    exchange.loses = True
    await say(gateway, ann, 3)
    joined = await other_gateway.channels.join(ann, LOBBY, ChannelPosition("epoch-1", 2))
    assert (joined.is_recovered, joined.position.offset) == (True, 3)
    assert [one.position.offset for one in joined.publications] == [3]


@pytest.mark.parametrize(
    "since", [ChannelPosition("another", 1), ChannelPosition("epoch-1", 4), ChannelPosition("", 0)]
)
async def test_nothing_is_recovered_at_an_impossible_position(
    gateway: Gateway, ann: Access, since: ChannelPosition
) -> None:
    await say(gateway, ann, 3)
    joined = await gateway.channels.join(ann, LOBBY, since)
    assert (joined.is_recovered, joined.publications, joined.position.offset) == (False, [], 3)


async def test_more_than_300_missed_messages_are_not_recovered(gateway: Gateway, ann: Access) -> None:
    await say(gateway, ann, MOST_RECOVERED + 1)
    near = await gateway.channels.join(ann, LOBBY, ChannelPosition("epoch-1", 1))
    far = await gateway.channels.join(ann, LOBBY, ChannelPosition("epoch-1", 0))
    assert (near.is_recovered, len(near.publications)) == (True, MOST_RECOVERED)
    assert (far.is_recovered, far.publications) == (False, [])


@pytest.mark.parametrize(
    ("limit", "since", "reverse", "expected"),
    [
        (2, None, False, [1, 2]),
        (2, None, True, [5, 4]),
        (-1, None, False, [1, 2, 3, 4, 5]),
        (0, None, False, []),
        (3, 1, False, [2, 3, 4]),
        (3, 3, True, [2, 1]),
        (3, 5, False, []),
    ],
)
async def test_history_goes_forwards_from_a_position_or_backwards(
    gateway: Gateway, ann: Access, limit: int, since: int | None, reverse: bool, expected: list[int]
) -> None:
    await say(gateway, ann, 5)
    position = None if since is None else ChannelPosition("epoch-1", since)
    found = await gateway.channels.history(ann, LOBBY, limit=limit, since=position, reverse=reverse)
    assert [one.position.offset for one in found.publications] == expected
    assert found.position == ChannelPosition("epoch-1", 5)


async def test_history_of_another_epoch_or_of_quotes_is_an_error(gateway: Gateway, ann: Access) -> None:
    with pytest.raises(CommandError) as error:
        await gateway.channels.history(ann, LOBBY, limit=1, since=ChannelPosition("other", 1), reverse=False)
    assert error.value.code == ErrorCode.UNRECOVERABLE_POSITION
    with pytest.raises(CommandError) as error:
        await gateway.channels.history(ann, channel_of("quotes:A"), limit=1, since=None, reverse=False)
    assert error.value.code == ErrorCode.NOT_AVAILABLE
