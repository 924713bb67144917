"""All open connections share one clock, and one check of each key for all of its connections."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from chassis.errors import DatabaseUnavailable
from contracts.scopes import Scope
from gateway.http.principal import Principal
from gateway.realtime import connections as module
from gateway.realtime.access import Access
from gateway.realtime.connections import Connections


def principal(key_id: str, *scopes: Scope) -> Principal:
    return Principal(7, "Ann", "member", key_id, frozenset(scopes))


@dataclass(eq=False)
class Open:
    """A connection that records its calls."""

    access: Access | None
    reported: list[Access | None] = field(default_factory=list)

    def tick(self, now: float) -> None: ...

    def change_access(self, access: Access | None) -> None:
        self.reported.append(access)


@dataclass
class CheckedKeys:
    """The database's answers about keys; `asked` are the keys that were checked."""

    found: dict[str, Principal] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    is_away: bool = False

    async def renew(self, caller: Principal) -> Principal | None:
        self.asked.append(caller.key_id)
        if self.is_away:
            raise DatabaseUnavailable
        return self.found.get(caller.key_id)


async def test_each_key_is_checked_once_for_all_its_connections() -> None:
    keys = CheckedKeys({"k1": principal("k1", Scope.CHAT_READ)})
    connections = Connections(keys.renew)
    bounded = Access(principal("k1"), channels=frozenset({"chat:lobby"}), expires_at=9.0)
    opened = [Open(Access(principal("k1"))) for _ in range(50)] + [Open(bounded), Open(None)]
    gone = Open(Access(principal("k2")))
    for one in [*opened, gone]:
        connections.add(one)
    await connections.check_keys()
    assert sorted(keys.asked) == ["k1", "k2"]
    assert all(one.reported == [Access(keys.found["k1"])] for one in opened[:50])
    assert opened[50].reported == [Access(keys.found["k1"], None, bounded.channels, 9.0)]
    assert opened[51].reported == []
    assert gone.reported == [None]


async def test_other_work_goes_on_while_the_rights_of_very_many_connections_are_applied() -> None:
    connections = Connections(CheckedKeys({"k1": principal("k1", Scope.CHAT_READ)}).renew)
    opened = [Open(Access(principal("k1"))) for _ in range(300)]
    for one in opened:
        connections.add(one)
    checking, steps = asyncio.create_task(connections.check_keys()), [0]
    while not checking.done():
        await asyncio.sleep(0)
        steps.append(sum(len(one.reported) for one in opened))
    assert steps[-1] == 300
    assert max(after - before for before, after in pairwise(steps)) == 1


async def test_other_work_goes_on_while_very_many_connections_have_their_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.001)
    connections = Connections(CheckedKeys().renew)
    opened = [Ticked(None) for _ in range(200)]
    for one in opened:
        connections.add(one)
    ticking, steps = asyncio.create_task(connections.keep_time()), [0]
    while steps[-1] < 200:
        await asyncio.sleep(0)
        steps.append(sum(one.has_time.is_set() for one in opened))
    ticking.cancel()
    assert max(after - before for before, after in pairwise(steps)) <= 50


async def test_while_the_database_is_away_connections_live_on() -> None:
    keys = CheckedKeys(is_away=True)
    connections = Connections(keys.renew)
    one = Open(Access(principal("k1")))
    connections.add(one)
    await connections.check_keys()
    assert (one.reported, len(connections)) == ([], 1)


class Broken(Open):
    """A connection that fails at whatever it is asked to do."""

    def tick(self, now: float) -> None:
        raise RuntimeError

    def change_access(self, access: Access | None) -> None:
        raise RuntimeError


@dataclass(eq=False)
class Ticked(Open):
    """A connection that notes when it is its turn."""

    has_time: asyncio.Event = field(default_factory=asyncio.Event)

    def tick(self, now: float) -> None:
        self.has_time.set()


async def test_a_connection_that_fails_takes_nothing_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.01)
    connections = Connections(CheckedKeys().renew)
    broken = [Broken(Access(principal("k1"))) for _ in range(20)]
    others = [Ticked(Access(principal("k1"))) for _ in range(20)]
    for one in [*broken, *others]:
        connections.add(one)
    ticking = asyncio.create_task(connections.keep_time())
    await asyncio.gather(*(one.has_time.wait() for one in others))
    ticking.cancel()
    await connections.check_keys()
    assert [one.reported for one in others] == [[None]] * 20


async def test_a_key_whose_check_fails_takes_no_time_from_the_checks_of_others() -> None:
    keys = CheckedKeys()

    async def renew(caller: Principal) -> Principal | None:
        if caller.key_id.startswith("odd"):
            raise ValueError("a row that cannot be read")
        return await keys.renew(caller)

    connections = Connections(renew)
    odd = [Open(Access(principal(f"odd{number}"))) for number in range(20)]
    ended = [Open(Access(principal(f"k{number}"))) for number in range(20)]
    for one in [*ended, *odd]:
        connections.add(one)
    await connections.check_keys()
    assert [one.reported for one in ended] == [[None]] * 20
    assert [one.reported for one in odd] == [[]] * 20


async def test_a_connection_with_a_new_token_is_not_judged_by_its_old_key() -> None:
    one = Open(Access(principal("k1")))

    async def refresh_meanwhile(caller: Principal) -> None:
        one.access = Access(principal("k2"))

    connections = Connections(refresh_meanwhile)
    connections.add(one)
    await connections.check_keys()
    assert one.reported == []
