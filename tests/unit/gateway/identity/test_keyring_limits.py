"""The bounds of the key ring: the keys that it remembers, and the requests that wait for the database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import pytest

from chassis.errors import Overloaded, Unauthenticated
from gateway.errors import TooManyFailures
from gateway.identity import keys
from gateway.identity.keyring import KeyRing
from gateway.identity.keys import ApiKey
from support.clocks import Clock
from support.doubles import signed_in
from support.doubles.key_table import Database

ADDRESS = "192.0.2.1"


async def questions(ring: KeyRing, database: Database, tried: Iterable[str]) -> int:
    """Return how often the database is asked when these keys come again."""
    before = database.questions
    for key in tried:
        with suppress(Unauthenticated):
            await ring.authenticate(key)
    return database.questions - before


async def test_the_memory_holds_no_usable_key(ring: KeyRing, database: Database) -> None:
    key = keys.new_key()
    database.add(key)
    await ring.authenticate(str(key))
    parts = vars(ring)
    assert key.secret not in repr([parts, vars(parts["_known"])])


async def test_no_number_of_unknown_keys_pushes_a_good_one_out(
    ring: KeyRing, database: Database, clock: Clock
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


async def test_ten_thousand_keys_are_remembered(ring: KeyRing, database: Database) -> None:
    known = [ApiKey(f"{number:016x}", "k" * 43) for number in range(10_050)]
    for number, key in enumerate(known):
        database.add(key, user_id=number % 20)
        await ring.authenticate(str(key))
    assert await questions(ring, database, [str(key) for key in known[-10_000:]]) == 0
    assert await questions(ring, database, [str(known[-10_001])]) == 1


async def test_the_keys_of_one_user_push_out_nobody_elses(ring: KeyRing, database: Database) -> None:
    other, *many = [ApiKey(f"{number:016x}", "k" * 43) for number in range(10_050)]
    database.add(other, user_id=1)
    await ring.authenticate(str(other))
    for key in many:
        database.add(key)
        await ring.authenticate(str(key))
    assert await questions(ring, database, [str(other), *map(str, many[-1000:])]) == 0
    assert await questions(ring, database, [str(many[-1001])]) == 1


async def test_the_access_tokens_of_one_user_push_out_nobody_elses_and_no_keys(
    token_ring: KeyRing, database: Database
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
    ring: KeyRing, database: Database, clock: Clock
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
    ring: KeyRing, database: Database, clock: Clock
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
    ring: KeyRing, database: Database
) -> None:
    database.may_answer.clear()
    tries = [asyncio.create_task(ring.authenticate(str(keys.new_key()), ADDRESS)) for _ in range(500)]
    await asyncio.sleep(0)
    assert database.questions == 2
    database.may_answer.set()
    found = await asyncio.gather(*tries, return_exceptions=True)
    assert {type(error) for error in found} == {Unauthenticated, TooManyFailures}
    assert database.questions <= 22


async def test_unknown_keys_of_one_address_keep_no_other_address_waiting(
    ring: KeyRing, database: Database
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
    ring: KeyRing, database: Database
) -> None:
    known = keys.new_key()
    database.add(known)
    await ring.authenticate(str(known))
    database.may_answer.clear()
    tries = [asyncio.create_task(ring.authenticate(str(keys.new_key()))) for _ in range(1000)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await ring.authenticate(str(keys.new_key()))
    assert await ring.authenticate(str(known))
    database.may_answer.set()
    assert len(await asyncio.gather(*tries, return_exceptions=True)) == 1000
