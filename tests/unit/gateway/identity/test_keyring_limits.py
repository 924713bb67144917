"""The bounds of the key ring: the keys that it remembers, and the requests that wait for the database."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import pytest

from chassis.errors import Overloaded, TooManyAtOnce, Unauthenticated
from gateway.errors import TooManyFailures
from gateway.identity import keys
from gateway.identity.keyring import KeyRing
from gateway.identity.keys import ApiKey
from support.clocks import Clock
from support.doubles import signed_in
from support.doubles.key_table import KeyDatabase

ADDRESS = "192.0.2.1"


def flood(ring: KeyRing, count: int) -> list[asyncio.Task[object]]:
    """Send unknown keys, each from an address of its own."""
    return [
        asyncio.create_task(ring.authenticate(str(keys.new_key()), f"198.51.{number // 256}.{number % 256}"))
        for number in range(count)
    ]


async def questions(ring: KeyRing, database: KeyDatabase, tried: Iterable[str]) -> int:
    """Return how often the database is asked when these keys come again."""
    before = database.questions
    for key in tried:
        with suppress(Unauthenticated):
            await ring.authenticate(key)
    return database.questions - before


def reachable(root: object) -> Iterator[object]:
    """Yield all objects that can be reached from `root`, but not through code or the event loop."""
    seen, left = set[int](), [root]
    while left:
        found = left.pop()
        if id(found) in seen or isinstance(found, type | ModuleType | FunctionType | CodeType | FrameType):
            continue
        seen.add(id(found))
        yield found
        if not isinstance(found, asyncio.AbstractEventLoop):
            left += gc.get_referents(found)


async def test_the_memory_holds_no_usable_key(ring: KeyRing, database: KeyDatabase) -> None:
    key = keys.new_key()
    database.add(key)
    await ring.authenticate(str(key))
    texts = [found for found in reachable(ring) if isinstance(found, str | bytes)]
    assert any(key.id in str(text) for text in texts)
    assert not any(key.secret in str(text) for text in texts)


async def test_no_number_of_unknown_keys_pushes_a_good_one_out(
    ring: KeyRing, database: KeyDatabase, clock: Clock
) -> None:
    good = keys.new_key()
    database.add(good)
    await ring.authenticate(str(good))
    unknown = [str(ApiKey(f"{number:016x}", "k" * 43)) for number in range(10_050)]
    for key in unknown:
        with pytest.raises(Unauthenticated):
            await ring.authenticate(key)
    # The last 1,000 refusals are remembered, and none before them.
    assert await questions(ring, database, unknown[-1_000:]) == 0
    assert await questions(ring, database, unknown[-1_001:-1_000]) == 1
    database.is_away = True
    clock.now += 600
    assert await ring.authenticate(str(good))


async def test_ten_thousand_keys_are_remembered(ring: KeyRing, database: KeyDatabase) -> None:
    known = [ApiKey(f"{number:016x}", "k" * 43) for number in range(10_050)]
    for number, key in enumerate(known):
        database.add(key, user_id=number % 20)
        await ring.authenticate(str(key))
    assert await questions(ring, database, [str(key) for key in known[-10_000:]]) == 0
    assert await questions(ring, database, [str(known[-10_001])]) == 1


async def test_the_keys_of_one_user_push_out_nobody_elses(ring: KeyRing, database: KeyDatabase) -> None:
    other, *many = [ApiKey(f"{number:016x}", "k" * 43) for number in range(10_050)]
    database.add(other, user_id=1)
    await ring.authenticate(str(other))
    for key in many:
        database.add(key)
        await ring.authenticate(str(key))
    assert await questions(ring, database, [str(other), *map(str, many[-1000:])]) == 0
    assert await questions(ring, database, [str(many[-1001])]) == 1


async def test_the_access_tokens_of_one_user_push_out_nobody_elses_and_no_keys(
    token_ring: KeyRing, database: KeyDatabase
) -> None:
    key = keys.new_key()
    database.add(key, user_id=8)
    await token_ring.authenticate(str(key))
    many = [signed_in.token(number) for number in range(10_050)]
    for text in many:
        await token_ring.authenticate(text)
    assert await questions(token_ring, database, [str(key), *many[-1000:]]) == 0
    assert await questions(token_ring, database, [many[-1001]]) == 1


async def test_an_unknown_key_is_asked_for_once_in_five_seconds(
    ring: KeyRing, database: KeyDatabase, clock: Clock
) -> None:
    unknown = str(keys.new_key())
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            await ring.authenticate(unknown)
    assert database.questions == 1
    clock.now += 5.1
    with pytest.raises(Unauthenticated):
        await ring.authenticate(unknown)
    assert database.questions == 2


async def test_an_address_with_many_failures_waits_before_the_database_is_asked_again(
    ring: KeyRing, database: KeyDatabase, clock: Clock
) -> None:
    good = keys.new_key()
    database.add(good)
    await ring.authenticate(str(good), ADDRESS)
    for _ in range(20):
        with pytest.raises(Unauthenticated):
            await ring.authenticate(str(keys.new_key()), ADDRESS)
    asked = database.questions
    with pytest.raises(TooManyFailures) as limited:
        await ring.authenticate(str(keys.new_key()), ADDRESS)
    assert (limited.value.status, limited.value.retry_after_s) == (429, 3)
    assert database.questions == asked
    # Neither those who are known, nor other addresses, are held up by it.
    assert await ring.authenticate(str(good), ADDRESS)
    clock.now += 5.1
    assert await ring.authenticate(str(good), ADDRESS)
    with pytest.raises(Unauthenticated):
        await ring.authenticate(str(keys.new_key()), "192.0.2.2")


async def test_keys_that_come_all_at_once_from_one_address_are_limited_too(
    ring: KeyRing, database: KeyDatabase
) -> None:
    database.may_answer.clear()
    tries = [asyncio.create_task(ring.authenticate(str(keys.new_key()), ADDRESS)) for _ in range(400)]
    await asyncio.sleep(0)
    assert database.questions == 2
    database.may_answer.set()
    found = await asyncio.gather(*tries, return_exceptions=True)
    assert {type(error) for error in found} == {Unauthenticated, TooManyFailures}
    assert database.questions <= 22


async def test_unknown_keys_of_one_address_keep_no_other_address_waiting(
    ring: KeyRing, database: KeyDatabase
) -> None:
    database.may_answer.clear()
    tries = [asyncio.create_task(ring.authenticate(str(keys.new_key()), ADDRESS)) for _ in range(10)]
    await asyncio.sleep(0)
    asked = database.questions
    tries.append(asyncio.create_task(ring.authenticate(str(keys.new_key()), "192.0.2.2")))
    await asyncio.sleep(0)
    assert database.questions == asked + 1
    database.may_answer.set()
    await asyncio.gather(*tries, return_exceptions=True)


async def test_no_more_than_a_thousand_unknown_keys_wait_for_the_database(
    ring: KeyRing, database: KeyDatabase
) -> None:
    known = keys.new_key()
    database.add(known)
    await ring.authenticate(str(known))
    database.may_answer.clear()
    tries = flood(ring, 1000)
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await ring.authenticate(str(keys.new_key()), ADDRESS)
    assert refused.value.status == 503
    assert await ring.authenticate(str(known))
    database.may_answer.set()
    assert len(await asyncio.gather(*tries, return_exceptions=True)) == 1000


async def test_unknown_keys_of_one_address_leave_places_for_those_of_others(
    ring: KeyRing, database: KeyDatabase
) -> None:
    database.may_answer.clear()
    tries = [asyncio.create_task(ring.authenticate(str(keys.new_key()), ADDRESS)) for _ in range(1000)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyAtOnce) as refused:
        await ring.authenticate(str(keys.new_key()), ADDRESS)
    assert refused.value.status == 429
    good = keys.new_key()
    database.add(good)
    asking = asyncio.create_task(ring.authenticate(str(good), "192.0.2.2"))
    await asyncio.sleep(0)
    database.may_answer.set()
    assert await asking
    await asyncio.gather(*tries, return_exceptions=True)


async def test_the_addresses_of_one_network_count_as_one(ring: KeyRing, database: KeyDatabase) -> None:
    database.may_answer.clear()
    tries = [
        asyncio.create_task(ring.authenticate(str(keys.new_key()), f"2001:db8::{number:x}"))
        for number in range(1, 11)
    ]
    await asyncio.sleep(0)
    assert database.questions == 2
    database.may_answer.set()
    await asyncio.gather(*tries, return_exceptions=True)


@pytest.mark.parametrize("is_changed", [True, False], ids=["after a change", "after a long time"])
async def test_a_key_that_was_valid_before_is_looked_up_at_once_in_a_flood_of_unknown_keys(
    is_changed: bool, ring: KeyRing, database: KeyDatabase, clock: Clock
) -> None:
    good = keys.new_key()
    database.add(good)
    await ring.authenticate(str(good))
    if is_changed:
        await ring.forget()
    else:
        clock.now += 3600
    database.may_answer.clear()
    tries = flood(ring, 1000)
    await asyncio.sleep(0)
    asked = database.questions
    asking = asyncio.create_task(ring.authenticate(str(good), "198.51.0.1"))
    while database.questions == asked:
        assert not asking.done()
        await asyncio.sleep(0)
    database.may_answer.set()
    assert await asking
    await asyncio.gather(*tries, return_exceptions=True)


async def test_changes_of_one_user_cost_the_keys_of_others_no_look_up(
    ring: KeyRing, database: KeyDatabase
) -> None:
    changed, other = keys.new_key(), keys.new_key()
    database.add(changed, user_id=7)
    database.add(other, user_id=8)
    tried = [str(changed), str(other)]
    await questions(ring, database, tried)
    await ring.forget(7)
    assert await questions(ring, database, tried[1:]) == 0
    assert await questions(ring, database, tried) == 1


async def test_what_is_read_while_a_key_is_revoked_is_not_believed_afterwards(
    ring: KeyRing, database: KeyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = keys.new_key()
    database.add(key)
    read = database.find_usable_keys

    async def read_before_the_change(key_ids: Collection[str]) -> list[dict[str, Any]]:
        found = await read(key_ids)
        if found:
            database.rows.clear()
            await ring.forget()
        return found

    monkeypatch.setattr(database, "find_usable_keys", read_before_the_change)
    assert await ring.authenticate(str(key))
    with pytest.raises(Unauthenticated):
        await ring.authenticate(str(key))
