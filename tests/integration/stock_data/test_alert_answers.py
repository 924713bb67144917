"""Alerts as their owners make, list and end them, and the bound on how many."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from chassis.errors import NotFound
from contracts.alerts import Alert, DeleteAlert, ListAlerts, ListFirings
from stock_data.alerts.stored import StoredAlerts
from stock_data.errors import NoLiveFeed, TooManyAlerts, UnknownSymbol
from support.alert_ticks import tick
from support.alert_world import SOON, AlertWorld, settled, watching


async def test_no_owner_has_more_than_its_number_of_alerts_that_can_fire_however_it_asks(
    world: AlertWorld,
) -> None:
    made = await asyncio.gather(*(world.create(above=10) for _ in range(9)), return_exceptions=True)
    refused = [one for one in made if isinstance(one, TooManyAlerts)]
    assert (len(made) - len(refused), len(refused)) == (5, 4)
    await world.create("8", above=10)
    alerts = [one for one in made if isinstance(one, Alert)]
    await world.answers.delete(DeleteAlert(alert_id=alerts[0].id, owner_id="7"), SOON)
    await world.create(above=10)
    await world.rows("UPDATE alerts SET expires_at = now() WHERE id = $1", alerts[1].id)
    await world.create(above=10)


async def test_the_same_request_makes_one_alert(world: AlertWorld) -> None:
    made = await asyncio.gather(*(world.create(above=10, request_key="k") for _ in range(4)))
    assert len({alert.id for alert in made}) == 1
    assert (await world.create("8", above=10, request_key="k")).id != made[0].id


async def test_lists_are_of_their_owner_newest_first_in_pages_and_by_status(world: AlertWorld) -> None:
    world.show(9)
    made = [await world.create(above=10 + number, symbol="ab"[number % 2]) for number in range(5)]
    await world.create("8", above=10)
    async with watching(world) as watcher:
        watcher.take([tick(13)])
        await settled(watcher)
    first = await world.answers.list(ListAlerts(owner_id="7", limit=3), SOON)
    rest = await world.answers.list(ListAlerts(owner_id="7", before=first.next_cursor), SOON)
    assert [alert.id for alert in first.data + rest.data] == [alert.id for alert in reversed(made)]
    assert rest.next_cursor is None
    fired = await world.answers.list(ListAlerts(owner_id="7", status=["fired"]), SOON)
    assert {alert.id for alert in fired.data} == {made[0].id, made[2].id}
    of_b = await world.answers.list(ListAlerts(owner_id="7", symbol="B"), SOON)
    assert {alert.id for alert in of_b.data} == {made[1].id, made[3].id}


async def test_an_alert_of_another_owner_is_not_found(world: AlertWorld) -> None:
    alert = await world.create(above=10)
    with pytest.raises(NotFound):
        await world.get(alert, "8")
    with pytest.raises(NotFound):
        await world.answers.delete(DeleteAlert(alert_id=alert.id, owner_id="8"), SOON)
    assert (await world.get(alert)).condition.model_dump(exclude_none=True) == {"above": Decimal(10)}


async def test_an_alert_that_could_never_fire_is_refused(world: AlertWorld) -> None:
    with pytest.raises(UnknownSymbol):
        await world.create(symbol="C", above=1)
    world.answers = world.answering(has_feed=False)
    with pytest.raises(NoLiveFeed):
        await world.create(above=1)


async def test_firings_are_read_forwards_from_a_position_and_backwards(world: AlertWorld) -> None:
    assert (await world.answers.firings(ListFirings(owner_id="7"), SOON)).offset == 0
    world.show(9)
    for threshold in range(10, 15):
        await world.create(above=threshold)
    async with watching(world) as watcher:
        for price in range(11, 16):
            watcher.take([tick(price)])
        await settled(watcher)

    async def offsets(**asked: Any) -> list[int]:
        found = await world.answers.firings(ListFirings(owner_id="7", **asked), SOON)
        assert found.offset == 5
        return [firing.offset for firing in found.data]

    assert await offsets() == [1, 2, 3, 4, 5]
    assert await offsets(after=3) == [4, 5]
    assert await offsets(newest_first=True, limit=2) == [5, 4]
    assert await offsets(before=4, newest_first=True) == [3, 2, 1]
    assert await offsets(limit=0) == []


async def test_only_alerts_that_are_over_are_removed_after_their_time(world: AlertWorld) -> None:
    for number in range(5):
        await world.create(above=10, request_key=str(number))
    kept, *others = [row["id"] for row in await world.rows("SELECT id FROM alerts ORDER BY id")]
    old = "now() - interval '31 days'"
    for id_, change in zip(
        others,
        (
            f"deleted_at = {old}",
            f"expires_at = {old}",
            f"fired_at = {old}, fired_count = 1",
            f"created_at = {old}",
        ),
        strict=True,
    ):
        await world.rows(f"UPDATE alerts SET {change} WHERE id = $1", id_)
    await StoredAlerts(world.postgres).clean()
    rows = await world.rows("SELECT id, request_key FROM alerts ORDER BY id")
    assert [(row["id"], row["request_key"]) for row in rows] == [(kept, "0"), (others[3], None)]
