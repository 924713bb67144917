"""The subscriptions of one connection: what a subscriber gets, in which order, and when it ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import orjson
import pytest
from pydantic import ValidationError

from chassis.loop_turns import LoopTurns
from contracts.scopes import Scope
from gateway.http.principal import Principal
from gateway.publishing.hub import Hub
from gateway.publishing.positions import ChannelPosition
from gateway.publishing.publications import Publication
from gateway.publishing.signals import FellBehind
from gateway.realtime.access import Access
from gateway.realtime.channels import channel_of
from gateway.realtime.codes import CloseCode
from gateway.realtime.commands import ConnectArguments
from support.doubles.realtime import (
    Broker,
    Client,
    Gateway,
    Rooms,
    connected,
    quote,
    say,
)


async def test_at_most_two_hundred_channels_may_be_subscribed_to_at_once(
    gateway: Gateway, client: Client
) -> None:
    gateway.book.push([quote(f"S{number}", 1) for number in range(201)])
    lines = [{"id": n + 1, "subscribe": {"channel": f"quotes:S{n}"}} for n in range(201)]
    await client.session.receive(b"\n".join(orjson.dumps(line) for line in lines))
    replies = {frame["id"]: frame for frame in client.frames if "id" in frame}
    assert [n for n in range(1, 201) if "subscribe" not in replies[n]] == []
    assert replies[201]["error"]["code"] == 106
    client.session.release()
    assert gateway.hub.counts() == {}


async def test_a_connect_that_names_more_channels_than_there_may_be_is_refused(
    gateway: Gateway, ann: Access
) -> None:
    client = Client(gateway, ann)
    error = await client.ask(connect={"subs": {f"quotes:S{number}": {} for number in range(201)}})
    assert (error["code"], error["temporary"]) == (107, False)
    assert "at most 200" in error["message"]
    assert gateway.hub.counts() == {}


def test_a_connect_that_names_too_many_channels_is_refused_before_it_looks_at_each() -> None:
    with pytest.raises(ValidationError) as refused:
        ConnectArguments.model_validate({"subs": {f"s{number}": 1 for number in range(7_700)}})
    assert refused.value.error_count() == 1


async def test_a_subscription_beyond_those_of_its_owner_is_refused_for_now_and_leaves_nothing(
    rooms: Rooms, exchange: Broker, ann: Access
) -> None:
    gateway = Gateway(rooms, exchange, hub=Hub(most_subscriptions=2))
    gateway.book.push([quote(f"S{number}", 1) for number in range(3)])
    first, second = await connected(gateway, ann), await connected(gateway, ann)
    for number in range(2):
        assert "epoch" in await first.ask(subscribe={"channel": f"quotes:S{number}"})
    refused = await second.ask(subscribe={"channel": "quotes:S2"})
    assert (refused["code"], refused["temporary"]) == (106, True)
    # As in Centrifugo, the answer to a connect omits it.
    assert "subs" not in await Client(gateway, ann).ask(connect={"subs": {"quotes:S2": {}}})
    first.session.release()
    assert "epoch" in await second.ask(subscribe={"channel": "quotes:S2"})
    assert gateway.hub.counts() == {"quotes:S2": 1}


async def test_what_a_connect_recovers_in_all_its_channels_together_is_bounded(
    gateway: Gateway, ann: Access
) -> None:
    gateway.buffer_bytes = 20_000
    rooms = [f"chat:room-{number}" for number in range(8)]
    for room in rooms:
        gateway.rooms.epochs[room.removeprefix("chat:")] = "epoch-1"
        await gateway.channels.publish(ann, channel_of(room), {"text": "x" * 3000})
    seen = {"recover": True, "epoch": "epoch-1", "offset": 0}
    answer = await Client(gateway, ann).ask(connect={"subs": dict.fromkeys(rooms, seen)})
    joined = [answer["subs"][room] for room in rooms]
    assert sorted(one["recovered"] for one in joined) == [False] * 5 + [True] * 3
    assert all(bool(one["publications"]) == one["recovered"] for one in joined)
    assert {one["offset"] for one in joined} == {1}


async def test_a_subscriber_gets_the_position_and_all_later_publications(client: Client) -> None:
    assert await client.ask(subscribe={"channel": "chat:lobby"}) == {
        "recoverable": True,
        "positioned": True,
        "epoch": "epoch-1",
        "offset": 0,
        "was_recovering": False,
        "recovered": False,
        "publications": [],
    }
    assert await client.ask(publish={"channel": "chat:lobby", "data": {"text": "hi"}}) == {}
    [push] = client.pushes()
    assert (push["channel"], push["pub"]["offset"], push["pub"]["epoch"]) == ("chat:lobby", 1, "epoch-1")
    assert push["pub"]["data"] == {"text": "hi", "user": "Ann", "user_id": "7"}


@pytest.mark.parametrize("recover", [False, True])
async def test_the_reply_comes_first_and_then_every_offset_once_under_chat(
    gateway: Gateway, client: Client, ann: Access, recover: bool
) -> None:
    await say(gateway, ann, "one", "two", "three")
    posting = asyncio.gather(*(say(gateway, ann, f"late {number}") for number in range(20)))
    seen = {"recover": True, "epoch": "epoch-1", "offset": 1} if recover else {}
    await client.session.receive(orjson.dumps({"id": 77, "subscribe": {"channel": "chat:lobby", **seen}}))
    await posting
    first = client.frames.pop(0)
    assert first["id"] == 77
    joined = first["subscribe"]
    offsets = [one["offset"] for one in joined["publications"]] + client.offsets()
    assert offsets == list(range((1 if recover else joined["offset"]) + 1, 24))


async def test_joins_under_chat_over_two_gateways_have_no_gap(
    gateway: Gateway, other_gateway: Gateway, ann: Access
) -> None:
    posting = asyncio.gather(
        *(say(one, ann, *[str(n) for n in range(20)]) for one in (gateway, other_gateway) * 5)
    )
    joins = []
    for number in range(40):
        client = await connected((gateway, other_gateway)[number % 2], ann)
        joins.append((client, await client.ask(subscribe={"channel": "chat:lobby"})))
        await asyncio.sleep(0)
    await posting
    for client, joined in joins:
        assert client.offsets() == list(range(joined["offset"] + 1, 201))


async def test_a_position_that_cannot_be_recovered_is_an_error_for_a_client_that_asks_for_it(
    client: Client,
) -> None:
    lost = {"channel": "chat:lobby", "recover": True, "epoch": "another", "offset": 3}
    assert (await client.ask(subscribe={**lost, "flag": 3}))["code"] == 112
    joined = await client.ask(subscribe={**lost, "flag": 1})
    assert (joined["was_recovering"], joined["recovered"]) == (True, False)


async def test_after_unsubscribing_nothing_comes(gateway: Gateway, client: Client, ann: Access) -> None:
    await client.ask(subscribe={"channel": "chat:lobby"})
    assert await client.ask(unsubscribe={"channel": "chat:lobby"}) == {}
    await say(gateway, ann, "x")
    assert client.frames == []
    assert not gateway.hub.has_listeners("chat:lobby")
    assert (await client.ask(presence_stats={"channel": "chat:lobby"}))["num_clients"] == 0


async def test_a_channel_is_subscribed_to_once_however_it_is_written(
    gateway: Gateway, client: Client
) -> None:
    gateway.book.push([quote("AAPL", 1)])
    await client.ask(subscribe={"channel": "quotes:AAPL"})
    assert (await client.ask(subscribe={"channel": "quotes:aapl"}))["code"] == 105
    assert gateway.hub.counts() == {"quotes:AAPL": 1}


async def test_a_subscription_that_is_refused_leaves_nothing(gateway: Gateway, client: Client) -> None:
    for channel in ("quotes:NOPE", "chat:nowhere", "batch:nonsense", f"task:{uuid4()}"):
        assert "code" in await client.ask(subscribe={"channel": channel})
    assert gateway.hub.counts() == {}


async def test_a_connection_that_closes_while_it_subscribes_leaves_nothing(
    gateway: Gateway, client: Client
) -> None:
    asking = asyncio.create_task(client.session.receive(b'{"id":1,"subscribe":{"channel":"chat:lobby"}}'))
    await asyncio.sleep(0)
    client.session.close(CloseCode.INTERNAL_ERROR)
    await asking
    assert gateway.hub.counts() == {}
    assert (await gateway.presence.of("chat:lobby")).num_clients == 0


async def test_a_right_that_is_lost_while_it_subscribes_is_an_error(
    gateway: Gateway, client: Client, ann: Access
) -> None:
    asking = asyncio.create_task(client.ask(subscribe={"channel": "chat:lobby"}))
    while not gateway.hub.counts():
        await asyncio.sleep(0)
    less = replace(ann.principal, scopes=ann.principal.scopes - {Scope.CHAT_READ})
    client.session.change_access(replace(ann, principal=less))
    assert (await asking)["code"] == 103
    assert gateway.hub.counts() == {}
    assert (await gateway.presence.of("chat:lobby")).num_clients == 0


async def test_a_subscriber_that_would_miss_publications_is_asked_to_subscribe_again(ann: Access) -> None:
    # All of them are handed out in one pass of the loop.
    gateway = Gateway(Rooms(), Broker(), hub=Hub(turns=LoopTurns(most=5_000)))
    client = await connected(gateway, ann)
    asking = asyncio.create_task(client.ask(subscribe={"channel": "chat:lobby"}))
    while not gateway.hub.counts():
        await asyncio.sleep(0)
    for offset in range(1, 1002):
        news = Publication("chat:lobby", ChannelPosition("epoch-1", offset), {"text": "x"})
        gateway.hub.publish(news, is_ordered=True)
    assert (await asking)["positioned"] is True
    [push] = client.pushes()
    assert (push["channel"], push["unsubscribe"]["code"]) == ("chat:lobby", 2500)
    assert gateway.hub.counts() == {}
    assert (await client.ask(subscribe={"channel": "chat:lobby"}))["positioned"] is True


async def test_a_subscriber_that_falls_behind_before_its_answer_is_asked_to_subscribe_again(
    gateway: Gateway, client: Client
) -> None:
    client.frames.clear()
    asking = asyncio.create_task(client.session.receive(b'{"id":9,"subscribe":{"channel":"chat:lobby"}}'))
    while not gateway.hub.counts():
        await asyncio.sleep(0)
    gateway.hub.signal(FellBehind("chat:lobby"))
    await asking
    answer, told = client.frames
    assert answer["subscribe"]["positioned"] is True
    assert (told["push"]["channel"], told["push"]["unsubscribe"]["code"]) == ("chat:lobby", 2500)
    assert gateway.hub.counts() == {}


async def test_quotes_wait_for_their_interval_and_chat_does_not(
    gateway: Gateway, client: Client, ann: Access
) -> None:
    gateway.book.push([quote("AAPL", 1)])
    joined = await client.ask(subscribe={"channel": "quotes:AAPL", "data": {"conflate_ms": 60_000}})
    assert [one["offset"] for one in joined["publications"]] == [1]
    await client.ask(subscribe={"channel": "chat:lobby"})
    for number in range(2, 6):
        gateway.book.push([quote("AAPL", number)])
        await say(gateway, ann, str(number))
    pushes = client.pushes()
    assert [p["pub"]["offset"] for p in pushes if p["channel"] == "chat:lobby"] == [1, 2, 3, 4]
    assert [p["pub"]["offset"] for p in pushes if p["channel"] == "quotes:AAPL"] == [2]


async def test_a_quote_never_goes_backwards(gateway: Gateway, client: Client) -> None:
    gateway.book.push([quote("AAPL", 5)])
    await client.ask(subscribe={"channel": "quotes:AAPL"})
    restarted = {**quote("AAPL", 1), "stream": {"epoch": "later", "offset": 1}}
    for one in (quote("AAPL", 6), quote("AAPL", 5), restarted, quote("AAPL", 7)):
        gateway.book.push([one])
    pushed = [(push["pub"]["epoch"], push["pub"]["offset"]) for push in client.pushes()]
    assert pushed == [("feed", 6), ("later", 1)]


async def test_presence_lists_connections_of_all_gateways(
    gateway: Gateway, other_gateway: Gateway, client: Client, ann: Access
) -> None:
    other = await connected(other_gateway, replace(ann, principal=replace(ann.principal, user_id=9)))
    await other_gateway.presence.greet()
    for one in (client, other):
        await one.ask(subscribe={"channel": "chat:lobby"})
    listed = (await client.ask(presence={"channel": "chat:lobby"}))["presence"]
    assert listed == {
        client.session.id: {"user": "7", "client": client.session.id},
        other.session.id: {"user": "9", "client": other.session.id},
    }
    stats = await client.ask(presence_stats={"channel": "chat:lobby"})
    assert stats == {"num_clients": 2, "num_users": 2}


@pytest.mark.parametrize("command", ["subscribe", "presence", "presence_stats", "history"])
async def test_without_the_right_to_read_a_channel_nothing_of_it_is_sent(
    gateway: Gateway, command: str
) -> None:
    writer = Access(Principal(8, "W", "member", "k8", frozenset({Scope.CHAT_WRITE})))
    client = await connected(gateway, writer)
    assert (await client.ask(**{command: {"channel": "chat:lobby"}}))["code"] == 103
    assert await client.ask(publish={"channel": "chat:lobby", "data": {"text": "x"}}) == {}


@pytest.mark.parametrize("command", ["subscribe", "presence", "presence_stats"])
async def test_work_of_another_owner_cannot_be_followed(
    gateway: Gateway, client: Client, command: str
) -> None:
    id_ = uuid4()
    gateway.work[id_] = {"owner_id": "99", "status": "running"}
    assert (await client.ask(**{command: {"channel": f"batch:{id_}"}}))["code"] == 102


async def test_a_reply_never_fills_the_queue_by_itself(gateway: Gateway, ann: Access) -> None:
    gateway.buffer_bytes = 65_536
    for _ in range(100):
        await say(gateway, ann, "x" * 4000)
    client = await connected(gateway, ann)
    history = await client.ask(history={"channel": "chat:lobby", "limit": 300})
    assert [one["offset"] for one in history["publications"]] == list(range(1, 9))[
        : len(history["publications"])
    ]
    assert history["publications"]
    seen = {"recover": True, "epoch": "epoch-1", "offset": 1}
    joined = await client.ask(subscribe={"channel": "chat:lobby", **seen})
    assert (joined["recovered"], joined["publications"], joined["offset"]) == (False, [], 100)


async def test_a_reader_that_is_too_slow_for_chat_is_closed_to_come_back(
    gateway: Gateway, ann: Access
) -> None:
    gateway.buffer_bytes = 65_536
    client = await connected(gateway, ann)
    await client.ask(subscribe={"channel": "chat:lobby"})
    client.session.queue.pause()
    for _ in range(30):
        await say(gateway, ann, "x" * 4000)
    assert client.closed == [(CloseCode.SLOW, "The client reads too slowly; connect again and recover.")]
    assert gateway.hub.counts() == {}


async def test_a_right_that_is_lost_takes_its_subscriptions_and_no_others(
    gateway: Gateway, client: Client, ann: Access
) -> None:
    gateway.book.push([quote("AAPL", 1)])
    for channel in ("chat:lobby", "quotes:AAPL"):
        await client.ask(subscribe={"channel": channel})
    less = replace(ann.principal, scopes=ann.principal.scopes - {Scope.CHAT_READ})
    client.session.change_access(replace(ann, principal=less))
    [push] = client.pushes()
    assert (push["channel"], push["unsubscribe"]["code"]) == ("chat:lobby", 2000)
    assert gateway.hub.counts() == {"quotes:AAPL": 1}
    client.session.change_access(None)
    assert client.closed[0][0] == CloseCode.INVALID_TOKEN
    assert gateway.hub.counts() == {}


async def test_a_state_of_a_newer_position_is_sent_and_one_of_an_older_position_is_not(
    gateway: Gateway, client: Client
) -> None:
    def state(epoch: str, offset: int) -> Publication:
        return Publication("quotes:AAPL", ChannelPosition(epoch, offset), {"n": offset}, is_state=True)

    gateway.book.push([{**quote("AAPL", 5), "stream": {"epoch": "1", "offset": 5}}])
    await client.ask(subscribe={"channel": "quotes:AAPL"})
    # In the line of a crowd, a state takes the place of the quote that it repeats.
    for one in (state("1", 4), state("1", 5), state("2", 1), state("1", 5)):
        gateway.hub.publish(one)
    positions = [(push["pub"]["epoch"], push["pub"]["offset"]) for push in client.pushes()]
    assert positions == [("1", 5), ("2", 1)]
