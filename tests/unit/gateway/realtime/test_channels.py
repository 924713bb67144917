"""What may be subscribed to, by whom, and what a subscriber gets at once."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import Forbidden, InvalidInput, NotFound, ServiceError
from gateway.http.principal import Principal
from gateway.realtime.channels import MOST_RECOVERED, split
from support.doubles.realtime import Exchange, Gateway


def quote(symbol: str, offset: int) -> dict[str, Any]:
    return {"symbol": symbol, "as_of": "2026-01-01T00:00:00Z", "stream": {"epoch": "feed", "offset": offset}}


async def say(gateway: Gateway, ann: Principal, count: int) -> None:
    for number in range(1, count + 1):
        await gateway.channels.post(ann, "chat:lobby", {"text": str(number)})


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("quotes:aapl", "quotes", "AAPL"),
        ("chat:lobby", "chat", "lobby"),
        ("batch:018F0000-0000-7000-8000-00000000000A", "batch", "018f0000-0000-7000-8000-00000000000a"),
        ("batch:{018f00000000700080000000000000ff}", "batch", "018f0000-0000-7000-8000-0000000000ff"),
    ],
)
def test_a_channel_is_a_kind_and_a_name_in_one_spelling(text: str, kind: str, name: str) -> None:
    assert split(text) == (kind, name)


@given(
    st.text(max_size=40) | st.builds("{}:{}".format, st.sampled_from(["quotes", "chat", "batch"]), st.text())
)
def test_any_text_is_a_channel_or_an_error_with_a_meaning(text: str) -> None:
    try:
        kind, name = split(text)
    except ServiceError:
        return
    assert kind in ("quotes", "chat", "batch")
    assert name.isascii()
    assert len(name) <= 64


@pytest.mark.parametrize(
    "text", ["", "quotes", "quotes:", "moon:x", "chat:No Spaces", "chat:lobby\n", "chat:" + "x" * 65]
)
def test_what_is_no_channel_is_invalid(text: str) -> None:
    with pytest.raises(InvalidInput):
        split(text)


async def test_a_quote_channel_begins_with_the_last_quote(gateway: Gateway, ann: Principal) -> None:
    gateway.book.push([quote("AAPL", 5)])
    joined = await gateway.channels.join(ann, "quotes:aapl", None)
    assert (joined.epoch, joined.offset, joined.is_conflated) == ("feed", 5, True)
    assert joined.publications[0]["channel"] == "quotes:AAPL"


async def test_before_the_first_tick_the_quote_is_asked_for(gateway: Gateway, ann: Principal) -> None:
    gateway.quotes["MSFT"] = {**quote("MSFT", 0), "stream": None}
    joined = await gateway.channels.join(ann, "quotes:MSFT", None)
    assert (joined.epoch, joined.offset) == ("gateway-epoch", 0)
    with pytest.raises(NotFound):
        await gateway.channels.join(ann, "quotes:NOPE", None)


async def test_a_push_reaches_only_who_listens(gateway: Gateway) -> None:
    heard: list[int] = []
    gateway.hub.listen("quotes:AAPL", lambda p: heard.append(p.offset))
    gateway.book.push([quote("AAPL", 1), quote("MSFT", 2), quote("AAPL", 3)])
    assert heard == [1, 3]


async def test_a_batch_channel_is_for_its_owner(gateway: Gateway, ann: Principal) -> None:
    mine, other = uuid4(), uuid4()
    gateway.batches[mine] = {"owner_id": "7", "status": "running"}
    gateway.batches[other] = {"owner_id": "9", "status": "running"}
    joined = await gateway.channels.join(ann, f"batch:{str(mine).upper()}", None)
    assert joined.publications[0]["channel"] == f"batch:{mine}"
    for name in (str(other), str(uuid4()), "nonsense"):
        with pytest.raises(NotFound):
            await gateway.channels.join(ann, f"batch:{name}", None)


@pytest.mark.parametrize("channel", ["quotes:AAPL", f"batch:{uuid4()}"])
async def test_a_key_without_the_scope_may_not_join(
    gateway: Gateway, nobody: Principal, channel: str
) -> None:
    with pytest.raises(Forbidden):
        await gateway.channels.join(nobody, channel, None)


async def test_only_chat_takes_messages_and_only_with_the_scope(
    gateway: Gateway, ann: Principal, nobody: Principal
) -> None:
    assert await gateway.channels.post(ann, "chat:lobby", {"text": "x"}) == 1
    with pytest.raises(Forbidden):
        await gateway.channels.post(nobody, "chat:lobby", {"text": "x"})
    with pytest.raises(Forbidden):
        await gateway.channels.post(ann, "quotes:AAPL", {"text": "x"})


@pytest.mark.parametrize(("since", "recovered"), [(0, [1, 2, 3]), (2, [3]), (3, [])])
async def test_who_says_where_it_was_gets_what_it_missed(
    gateway: Gateway, ann: Principal, since: int, recovered: list[int]
) -> None:
    await say(gateway, ann, 3)
    joined = await gateway.channels.join(ann, "chat:lobby", {"epoch": "epoch-1", "offset": since})
    assert joined.recovered
    assert [publication["offset"] for publication in joined.publications] == recovered
    assert joined.offset == 3


async def test_who_comes_from_a_gateway_that_is_ahead_recovers_all_the_same(
    gateway: Gateway, other_gateway: Gateway, exchange: Exchange, ann: Principal
) -> None:
    await other_gateway.chat.follow("lobby")
    exchange.loses = True
    await say(gateway, ann, 3)
    joined = await other_gateway.channels.join(ann, "chat:lobby", {"epoch": "epoch-1", "offset": 2})
    assert (joined.recovered, joined.offset) == (True, 3)
    assert [publication["offset"] for publication in joined.publications] == [3]


@pytest.mark.parametrize(
    "recover",
    [
        {"epoch": "another", "offset": 1},
        {"epoch": "epoch-1", "offset": 4},
        {"epoch": "epoch-1", "offset": -1},
        {"epoch": "epoch-1", "offset": 2**64},
        {"epoch": "epoch-1", "offset": "1"},
        {"epoch": "epoch-1", "offset": 1.0},
        {"epoch": "epoch-1"},
        {"offset": 1},
        {},
    ],
)
async def test_where_it_cannot_have_been_nothing_is_recovered(
    gateway: Gateway, ann: Principal, recover: dict[str, Any]
) -> None:
    await say(gateway, ann, 3)
    joined = await gateway.channels.join(ann, "chat:lobby", recover)
    assert (joined.recovered, joined.publications, joined.offset) == (False, [], 3)


async def test_more_than_300_missed_messages_are_not_recovered(gateway: Gateway, ann: Principal) -> None:
    await say(gateway, ann, MOST_RECOVERED + 1)
    near = await gateway.channels.join(ann, "chat:lobby", {"epoch": "epoch-1", "offset": 1})
    far = await gateway.channels.join(ann, "chat:lobby", {"epoch": "epoch-1", "offset": 0})
    assert (near.recovered, len(near.publications)) == (True, MOST_RECOVERED)
    assert (far.recovered, far.publications) == (False, [])


async def test_history_is_the_last_messages_oldest_first(gateway: Gateway, ann: Principal) -> None:
    await say(gateway, ann, 5)

    async def offsets(before: int | None, limit: int) -> list[int]:
        found = await gateway.channels.history("chat:lobby", before=before, limit=limit)
        return [publication["offset"] for publication in found]

    assert await offsets(None, 2) == [4, 5]
    assert await offsets(4, 2) == [2, 3]
    assert await offsets(1, 2) == []
    assert await offsets(0, 2) == []
    with pytest.raises(InvalidInput):
        await gateway.channels.history("quotes:AAPL", before=None, limit=1)
