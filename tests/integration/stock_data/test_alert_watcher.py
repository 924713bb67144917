"""Watching on a real PostgreSQL: each crossing fires once, whoever watches and whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import cycle
from typing import Any
from uuid import UUID, uuid4

import pytest

from chassis import beats, metrics
from chassis.errors import DatabaseUnavailable, InvalidInput, NotFound
from contracts import addresses
from contracts.alerts import DeleteAlert, ListFirings
from contracts.stocks import Quote
from stock_data.alerts import watcher as module
from stock_data.alerts.crossings import Crossing
from stock_data.alerts.stored import StoredAlerts
from stock_data.alerts.watched import WatchedAlert
from stock_data.alerts.watcher import AlertWatcher
from support.alert_ticks import MONDAY, tick
from support.alert_world import SOON, AlertWorld, settled, watching
from support.measured import value_of
from support.waiting import until


async def test_a_crossing_fires_once_and_is_one_transaction_with_its_event(world: AlertWorld) -> None:
    world.show(9)
    webhooks = [None, uuid4()]
    alert = await world.create(above=10, notify=[{"email": "ann@example.com"}], webhooks=webhooks)
    async with watching(world) as watcher:
        for price in (10, 11, 12, 9, 11):
            watcher.take([tick(price)])
        await settled(watcher)
    assert await world.firings() == [(1, 11)]
    [event] = await world.events()
    assert (event.owner_id, event.made_by, event.firing.offset) == ("7", "key", 1)
    assert [target.email for target in event.notify] == ["ann@example.com"]
    assert event.webhooks == alert.webhooks == webhooks
    found = await world.get(alert)
    assert (found.status, found.fired_count, found.last_price) == ("fired", 1, Decimal(11))


async def test_without_its_event_a_firing_is_not_stored_either(world: AlertWorld) -> None:
    world.show(9)
    await world.create(above=10)
    await world.rows("ALTER TABLE outbox ADD CONSTRAINT shut CHECK (message_type <> 'alert.fired.v1')")
    async with watching(world) as watcher:
        watcher.take([tick(11)])
        await asyncio.sleep(0.3)
        assert (await world.firings(), watcher.oldest_crossing_s > 0) == ([], True)
        await world.rows("ALTER TABLE outbox DROP CONSTRAINT shut")
        await settled(watcher)
    assert (await world.firings(), len(await world.events())) == ([(1, 11)], 1)


async def test_a_price_that_was_already_past_the_level_does_not_fire(world: AlertWorld) -> None:
    world.show(11)
    await world.create(above=10, once=False)
    await world.create(below=20, once=False)
    async with watching(world) as watcher:
        watcher.take([tick(12), tick(10)])
        await settled(watcher)
        assert await world.firings() == []
        watcher.take([tick(11)])
        await settled(watcher)
    assert await world.firings() == [(1, 11)]


async def test_a_crossing_while_nobody_watched_is_found_once_by_the_next_watcher(world: AlertWorld) -> None:
    world.show(9)
    await world.create(above=10, once=False)
    for _ in range(2):
        async with watching(world) as watcher:
            watcher.take([tick(11), tick(12)])
            await settled(watcher)
        assert await world.firings() == [(1, 11)]
    # It rests: a price that has gone back arms it again only after that.
    assert [row["side"] for row in await world.rows("SELECT side FROM alerts")] == [1]


async def test_one_of_two_watchers_fires_in_one_term_or_in_two(world: AlertWorld) -> None:
    world.show(9)
    for threshold in range(10, 15):
        await world.create(above=threshold)
    async with watching(world) as first, watching(world) as second:
        for watcher in (first, second):
            watcher.take([tick(13)])
        await settled(first, second)
        assert [price for _, price in await world.firings()] == [13] * 3
        await world.rows("UPDATE replay SET term = 2")
        async with watching(world, term=2) as successor:
            first.take([tick(20)])
            await asyncio.sleep(0.2)
            assert len(await world.firings()) == 3
            successor.take([tick(21)])
            await settled(successor)
    assert [offset for offset, _ in await world.firings()] == [1, 2, 3, 4, 5]
    assert [price for _, price in await world.firings()][3:] == [21, 21]
    assert len(await world.events()) == 5


class LosesAnswers(StoredAlerts):
    """A database whose first commit is not heard of."""

    is_lost = False

    async def record(self, term: int, crossings: Sequence[Crossing]) -> set[UUID] | None:
        changed = await super().record(term, crossings)
        if not self.is_lost:
            self.is_lost = True
            raise DatabaseUnavailable("The connection broke.")
        return changed


async def test_a_commit_whose_answer_was_lost_does_not_fire_again(
    world: AlertWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    world.show(9)
    await world.create(above=10, once=False)
    async with watching(world, alerts=LosesAnswers(world.postgres)) as watcher:
        watcher.take([tick(11)])
        await settled(watcher)
        watcher.take([tick(12)])
        await settled(watcher)
        assert watcher.armed == 1
    assert (await world.firings(), len(await world.events())) == ([(1, 11)], 1)


class FailsFor(StoredAlerts):
    """Fails, by a fault of its own, for every set of crossings that has one of `alert_id`."""

    alert_id: UUID

    async def record(self, term: int, crossings: Sequence[Crossing]) -> set[UUID] | None:
        if any(crossing.alert.id == self.alert_id for crossing in crossings):
            raise ValueError("a fault of one alert")
        return await super().record(term, crossings)


@pytest.fixture
async def until_given_up(
    world: AlertWorld, monkeypatch: pytest.MonkeyPatch
) -> Callable[[AlertWatcher], Awaitable[None]]:
    """Return a function that stores crossings of another alert until only that one is watched."""
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(module, "REST", timedelta(0))
    world.show(9)
    await world.create("9", crosses=10, once=False)
    prices = cycle((9, 11))

    async def wait(watcher: AlertWatcher) -> None:
        async def is_given_up() -> bool:
            watcher.take([tick(next(prices))])
            return watcher.armed == 1

        await until(is_given_up)
        await settled(watcher)

    return wait


async def test_an_alert_that_cannot_be_recorded_stops_no_other(
    world: AlertWorld, until_given_up: Callable[[AlertWatcher], Awaitable[None]]
) -> None:
    alerts = [await world.create(above=threshold) for threshold in (10, 11, 12)]
    stored = FailsFor(world.postgres)
    stored.alert_id = alerts[1].id
    async with watching(world, alerts=stored) as watcher:
        watcher.take([tick(13)])
        await until_given_up(watcher)
        assert await world.firings() == [(1, 13), (2, 13)]


async def test_an_alert_of_which_the_database_accepts_nothing_stops_no_other_and_is_given_up(
    world: AlertWorld,
    monkeypatch: pytest.MonkeyPatch,
    until_given_up: Callable[[AlertWatcher], Awaitable[None]],
) -> None:
    for owner in ("7", "8", "7"):
        await world.create(owner, above=10)
    await world.rows("ALTER TABLE alert_firings ADD CONSTRAINT no_eight CHECK (owner_id <> '8')")
    before = value_of(metrics.ALERTS_DROPPED)
    async with watching(world) as watcher:
        watcher.take([tick(11)])
        await until(lambda: watcher.unwritten == 1)
        assert await world.firings("7") == [(1, 11), (2, 11)]
        assert (watcher.armed, watcher.oldest_crossing_s > 0) == (2, True)
        await until_given_up(watcher)
        assert value_of(metrics.ALERTS_DROPPED) == before + 1
    assert await world.firings("8") == []


class CountsAttempts(StoredAlerts):
    """A database that counts the attempts to store crossings."""

    attempts = 0

    async def record(self, term: int, crossings: Sequence[Crossing]) -> set[UUID] | None:
        self.attempts += 1
        return await super().record(term, crossings)


async def test_alerts_fire_once_the_database_accepts_any_however_often_it_refused_them_all(
    world: AlertWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_REFUSALS", 2)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.02)
    world.show(9)
    for _ in range(2):
        await world.create(above=10)
    stored = CountsAttempts(world.postgres)
    await world.rows("ALTER TABLE alert_firings ADD CONSTRAINT nothing CHECK (false) NOT VALID")
    async with watching(world, alerts=stored) as watcher:
        watcher.take([tick(11)])
        await until(lambda: stored.attempts > 15)
        assert (watcher.unwritten, watcher.armed) == (2, 2)
        await world.rows("ALTER TABLE alert_firings DROP CONSTRAINT nothing")
        await settled(watcher)
    assert await world.firings() == [(1, 11), (2, 11)]


async def test_a_fault_in_the_comparison_of_one_alert_stops_no_other_and_it_is_watched_again(
    world: AlertWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.show(9)
    broken = (await world.create(above=10)).id
    for threshold in (11, 12):
        await world.create(above=threshold)

    def value_of_any_but_one(alert: WatchedAlert, quote: Quote) -> Decimal:
        if alert.id == broken:
            raise ValueError("a fault of one alert")
        return quote.price

    async with watching(world) as watcher:
        with monkeypatch.context() as patched:
            patched.setattr(WatchedAlert, "value_of", value_of_any_but_one)
            with pytest.raises(ValueError, match="one alert"):
                watcher.take([tick(13)])
        await settled(watcher)
        assert (watcher.armed, await world.firings()) == (1, [(1, 13), (2, 13)])
        watcher.take([tick(14)])
        await settled(watcher)
    assert await world.firings() == [(1, 13), (2, 13), (3, 14)]


async def test_an_address_that_is_refused_by_now_does_not_stop_its_alert(world: AlertWorld) -> None:
    world.show(9)
    alert = await world.create(above=10, notify=[{"email": "ann@corp.example"}])
    addresses.refuse_domains(["corp.example"])
    try:
        assert (await world.get(alert)).notify[0].email == "ann@corp.example"
        async with watching(world) as watcher:
            watcher.take([tick(11)])
            await settled(watcher)
        [event] = await world.events()
    finally:
        addresses.refuse_domains(addresses.REFUSED_DOMAINS)
    assert [target.email for target in event.notify] == ["ann@corp.example"]


async def test_an_alert_that_repeats_fires_on_the_next_crossing_after_its_cooldown(
    world: AlertWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.02)
    world.show(9)
    await world.create(crosses=10, once=False)
    async with watching(world) as watcher:
        watcher.take([tick(11)])
        await settled(watcher)
        for price in (9, 11, 9, 11):
            watcher.take([tick(price)])
        await settled(watcher)
        assert await world.firings() == [(1, 11)]
        now = datetime.now(UTC) + module.REST
        monkeypatch.setattr(module, "datetime", type("Later", (datetime,), {"now": lambda _: now}))

        async def fires() -> bool:
            watcher.take([tick(9)])
            await settled(watcher)
            return await world.firings() == [(1, 11), (2, 9)]

        await until(fires)


async def test_alerts_that_this_process_stores_or_ends_wake_the_watcher(
    world: AlertWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It would look again after an hour only.
    monkeypatch.setattr(beats, "due_in_s", lambda *_, **__: 3600)
    async with watching(world) as watcher:
        world.changed = watcher.wake
        alert = await world.create(above=10)
        await until(lambda: watcher.armed == 1)
        await world.answers.delete(DeleteAlert(alert_id=alert.id, owner_id="7"), SOON)
        await until(lambda: watcher.armed == 0)


async def test_an_alert_is_watched_soon_after_it_was_made_and_no_more_once_it_is_deleted(
    world: AlertWorld,
) -> None:
    world.show(9)
    async with watching(world) as watcher:
        made, deleted = await world.create(above=10), await world.create(above=10)
        await until(lambda: watcher.armed == 2)
        ended = await world.answers.delete(DeleteAlert(alert_id=deleted.id, owner_id="7"), SOON)
        assert ended.status == "armed"
        # Also before the watcher has heard of it.
        watcher.take([tick(11)])
        await settled(watcher)
        await until(lambda: watcher.armed == 0)
    assert [one.alert_id for one in (await world.answers.firings(ListFirings(owner_id="7"), SOON)).data] == [
        made.id
    ]
    with pytest.raises(NotFound):
        await world.get(deleted)


async def test_an_alert_that_has_expired_does_not_fire_and_says_so(world: AlertWorld) -> None:
    world.show(9)
    alert = await world.create(above=10, expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert (await world.get(alert)).status == "armed"
    async with watching(world) as watcher:
        watcher.take([tick(11, as_of=alert.expires_at)])
        assert (watcher.armed, watcher.unwritten) == (0, 0)
    expires_at = datetime.now(UTC) + timedelta(seconds=0.6)
    await world.rows(f"UPDATE alerts SET expires_at = '{expires_at.isoformat()}'")
    async with watching(world) as watcher:
        # Forgotten, also without a tick.
        await until(lambda: watcher.armed == 0)
    assert ((await world.get(alert)).status, await world.firings()) == ("expired", [])
    with pytest.raises(InvalidInput):
        await world.create(above=10, expires_at=expires_at)


async def test_a_change_of_a_day_is_reported_once_also_to_a_successor(world: AlertWorld) -> None:
    def change(percent: int, **more: Any) -> Quote:
        return tick(10, change_percent=Decimal(percent), **more)

    world.show(10, change_percent=Decimal(1))
    await world.create(change_percent=5, once=False)
    await world.rows("UPDATE alerts SET fired_at = NULL")
    async with watching(world) as watcher:
        watcher.take([change(6)])
        await settled(watcher)
    await world.rows("UPDATE alerts SET fired_at = now() - interval '1 hour'")
    async with watching(world) as watcher:
        watcher.take([change(7)])
        await settled(watcher)
        assert len(await world.firings()) == 1
        watcher.take([change(8, day=MONDAY + timedelta(days=1))])
        await settled(watcher)
    assert len(await world.firings()) == 2


async def test_very_many_alerts_at_one_price_do_not_hold_up_the_feed_and_all_of_them_fire(
    world: AlertWorld,
) -> None:
    world.show(9)
    many = 2_000
    await world.create(above=10)
    await world.rows("INSERT INTO alert_owners (owner_id) SELECT 'o' || n FROM generate_series(1, 4) AS n")
    await world.rows(
        "INSERT INTO alerts (id, owner_id, made_by, symbol, kind, threshold, emails, once, side, day)"
        " SELECT gen_random_uuid(), 'o' || (1 + n % 4), made_by, symbol, kind, threshold, emails, once, side,"
        f" day FROM alerts, generate_series(1, {many}) AS n"
    )
    async with watching(world) as watcher:
        watcher.take([tick(11)])
        # The rest waits for the next passes of the loop.
        assert watcher.unwritten < many / 2
        await settled(watcher)
        assert (watcher.armed, await world.firings()) == (0, [(1, 11)])
    [row] = await world.rows("SELECT count(*), max(number) FROM alert_firings")
    assert (row["count"], row["max"]) == (many + 1, many / 4)
