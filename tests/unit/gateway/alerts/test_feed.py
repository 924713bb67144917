"""The channel `alerts`: each owner hears its own firings, each once and in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from chassis.errors import Unavailable
from chassis.loop_turns import LoopTurns
from gateway.alerts.feed import topic
from gateway.http.principal import Principal
from gateway.publishing.hub import Hub
from gateway.publishing.publications import Publication
from gateway.publishing.signals import Signal
from gateway.realtime.access import Access
from support.doubles.realtime import Broker, Client, Gateway, Rooms, connected
from support.waiting import until


@pytest.fixture
def bob(ann: Access) -> Access:
    of_ann = ann.principal
    return Access(Principal(9, "Bob", of_ann.role, "other", of_ann.scopes))


async def listening(gateway: Gateway, who: Access, **options: object) -> Client:
    client = await connected(gateway, who)
    answer = await client.ask(subscribe={"channel": "alerts", **options})
    assert answer["recoverable"], answer
    return client


async def test_each_owner_receives_its_own_firings_on_a_channel_of_the_same_name(
    gateway: Gateway, ann: Access, bob: Access
) -> None:
    of_ann, of_bob = await listening(gateway, ann), await listening(gateway, bob)
    for owner in (ann, bob, ann):
        await gateway.alerts.heard(gateway.firings.fire(owner.principal.owner_id))
    pushes = of_ann.pushes()
    assert [(push["channel"], push["pub"]["offset"]) for push in pushes] == [("alerts", 1), ("alerts", 2)]
    assert pushes[0]["pub"]["data"]["condition"] == {"above": 10}
    assert of_bob.offsets() == [1]


async def test_nobody_sees_who_else_listens_to_alerts(gateway: Gateway, ann: Access, bob: Access) -> None:
    of_ann, _ = await listening(gateway, ann), await listening(gateway, bob)
    present = await of_ann.ask(presence={"channel": "alerts"})
    assert {one["user"] for one in present["presence"].values()} == {ann.principal.owner_id}


async def test_events_that_come_late_or_twice_are_shown_once_and_in_order(
    gateway: Gateway, ann: Access
) -> None:
    client, owner = await listening(gateway, ann), ann.principal.owner_id
    first, second, third = (gateway.firings.fire(owner) for _ in range(3))
    for event in (second, first, first, third, second):
        await gateway.alerts.heard(event)
    assert client.offsets() == [1, 2, 3]


async def test_missed_firings_are_recovered_and_an_older_position_is_not(
    gateway: Gateway, ann: Access
) -> None:
    for _ in range(3):
        gateway.firings.fire(ann.principal.owner_id)
    client = await connected(gateway, ann)
    position = {"channel": "alerts", "recover": True, "epoch": "epoch-a", "offset": 1}
    answer = await client.ask(subscribe=position)
    assert (answer["recovered"], answer["offset"]) == (True, 3)
    assert [one["offset"] for one in answer["publications"]] == [2, 3]
    await client.ask(unsubscribe={"channel": "alerts"})
    assert not (await client.ask(subscribe={**position, "epoch": "another"}))["recovered"]
    await client.ask(unsubscribe={"channel": "alerts"})
    # What is older than a month is gone.
    gateway.firings.gone = 2
    assert not (await client.ask(subscribe=position))["recovered"]


async def test_more_than_300_missed_firings_are_not_recovered(gateway: Gateway, ann: Access) -> None:
    for _ in range(302):
        gateway.firings.fire(ann.principal.owner_id)
    client = await connected(gateway, ann)
    position = {"channel": "alerts", "recover": True, "epoch": "epoch-a"}
    for offset, recovered in ((1, False), (2, True)):
        answer = await client.ask(subscribe={**position, "offset": offset})
        assert (answer["recovered"], len(answer["publications"])) == (recovered, 300 * recovered)
        await client.ask(unsubscribe={"channel": "alerts"})


async def test_history_goes_forwards_and_backwards(gateway: Gateway, ann: Access) -> None:
    for _ in range(5):
        gateway.firings.fire(ann.principal.owner_id)
    client = await connected(gateway, ann)

    async def offsets(**asked: object) -> list[int]:
        found = await client.ask(history={"channel": "alerts", **asked})
        assert (found["epoch"], found["offset"]) == ("epoch-a", 5)
        return [one["offset"] for one in found["publications"]]

    assert await offsets(limit=2) == [1, 2]
    assert await offsets(limit=2, reverse=True) == [5, 4]
    assert await offsets(limit=-1, since={"epoch": "epoch-a", "offset": 3}) == [4, 5]
    assert await offsets() == []
    lost = await client.ask(history={"channel": "alerts", "limit": 1, "since": {"epoch": "x", "offset": 1}})
    assert lost["code"] == 112


async def test_a_gap_is_shown_when_stock_data_is_back(gateway: Gateway, ann: Access) -> None:
    client, owner = await listening(gateway, ann), ann.principal.owner_id
    gateway.firings.fire(owner)
    gateway.firings.is_away = True
    await gateway.alerts.heard(gateway.firings.fire(owner))
    assert client.offsets() == []
    gateway.firings.is_away = False
    await gateway.alerts.look()
    assert client.offsets() == [1, 2]
    reads = gateway.firings.reads
    await gateway.alerts.look()
    assert gateway.firings.reads == reads


async def test_a_gap_that_a_new_listener_could_not_fill_is_filled_later(
    gateway: Gateway, ann: Access
) -> None:
    client, owner = await listening(gateway, ann), ann.principal.owner_id
    for _ in range(2):
        gateway.firings.fire(owner)
    gateway.alerts.note_interruption()
    gateway.firings.is_away = True
    with pytest.raises(Unavailable):
        await gateway.alerts.follow(ann.principal, at_least=2)
    gateway.firings.is_away = False
    await gateway.alerts.look()
    assert client.offsets() == [1, 2]


async def test_firings_that_were_missed_during_an_interruption_are_fetched(
    gateway: Gateway, ann: Access
) -> None:
    client = await listening(gateway, ann)
    gateway.firings.fire(ann.principal.owner_id)
    await gateway.alerts.look()
    assert client.offsets() == []
    gateway.alerts.note_interruption()
    await gateway.alerts.look()
    assert client.offsets() == [1]


async def test_without_listeners_no_firings_are_fetched(gateway: Gateway, ann: Access) -> None:
    client, owner = await listening(gateway, ann), ann.principal.owner_id
    await client.ask(unsubscribe={"channel": "alerts"})
    reads = gateway.firings.reads
    for _ in range(3):
        await gateway.alerts.heard(gateway.firings.fire(owner))
    assert gateway.firings.reads == reads


async def test_an_owner_whose_firings_are_slow_to_read_delays_no_other(
    gateway: Gateway, ann: Access, bob: Access
) -> None:
    of_ann, of_bob = await listening(gateway, ann), await listening(gateway, bob)
    for owner in (ann, bob):
        gateway.firings.fire(owner.principal.owner_id)
    gateway.firings.held[ann.principal.owner_id] = asyncio.Event()
    gateway.alerts.note_interruption()
    looking = asyncio.create_task(gateway.alerts.look())
    await until(lambda: of_bob.frames)
    assert (of_ann.offsets(), of_bob.offsets()) == ([], [1])
    # A look while one reads does not wait for it.
    await gateway.alerts.look()
    assert not looking.done()
    gateway.firings.held[ann.principal.owner_id].set()
    await looking
    assert of_ann.offsets() == [1]


async def test_firings_that_cannot_be_published_keep_nothing_from_other_owners(
    gateway: Gateway, ann: Access, bob: Access
) -> None:
    of_ann, of_bob = await listening(gateway, ann), await listening(gateway, bob)
    for owner in (ann, bob):
        gateway.firings.fire(owner.principal.owner_id)
    whole = gateway.firings.of[ann.principal.owner_id]
    gateway.firings.of[ann.principal.owner_id] = [None]  # type: ignore[list-item]
    gateway.alerts.note_interruption()
    await gateway.alerts.look()
    assert (of_ann.offsets(), of_bob.offsets()) == ([], [1])
    gateway.firings.of[ann.principal.owner_id] = whole
    await gateway.alerts.look()
    assert of_ann.offsets() == [1]


async def test_a_crowd_gets_what_it_missed_page_by_page_and_loses_nothing(ann: Access) -> None:
    gateway = Gateway(Rooms(), Broker(), hub=Hub(turns=LoopTurns(most=10)))
    owner, heard, signals = ann.principal.owner_id, list[list[int]](), list[Signal]()

    def hear(offsets: list[int]) -> Callable[[Publication], None]:
        return lambda publication: offsets.append(publication.position.offset)

    for _ in range(100):
        heard.append([])
        gateway.hub.listen(topic(owner), hear(heard[-1]), owner=owner, on_signal=signals.append)
    await gateway.alerts.follow(ann.principal)
    for _ in range(1000):
        gateway.firings.fire(owner)
    gateway.alerts.note_interruption()
    async with asyncio.timeout(60):
        while heard[-1][-1:] != [1000]:
            await gateway.alerts.look()
            await asyncio.sleep(0)
    assert (heard, signals) == ([[*range(1, 1001)]] * 100, [])


async def test_a_client_that_claims_to_be_ahead_of_its_crowd_gets_a_bounded_number_of_pages(
    ann: Access,
) -> None:
    gateway = Gateway(Rooms(), Broker())
    owner, offsets = ann.principal.owner_id, list[int]()
    gateway.hub.listen(topic(owner), lambda one: offsets.append(one.position.offset), owner=owner)
    gateway.firings.fire(owner)
    await gateway.alerts.follow(ann.principal)
    for _ in range(2_000):
        gateway.firings.fire(owner)
    position = await gateway.alerts.follow(ann.principal, at_least=2**62)
    assert (position.offset, len(offsets)) == (1_501, 1_500)
    await gateway.alerts.look()
    assert offsets == [*range(2, 2_002)]
