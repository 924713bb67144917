"""Authentication without a query for each request, and without a database for a while."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chassis.errors import DatabaseUnavailable, Unauthenticated
from gateway.identity import keyring, keys
from gateway.identity.keyring import KeyRing
from gateway.identity.keys import ApiKey
from support.clocks import Clock
from support.doubles.key_table import PEPPER, KeyDatabase
from support.doubles.signed_in import SlowIssuer, token
from support.waiting import until


async def test_a_valid_key_identifies_its_owner(ring: KeyRing, database: KeyDatabase) -> None:
    key = keys.new_key()
    principal = database.add(key)
    assert await ring.authenticate(str(key)) == principal


async def test_a_key_of_the_form_without_a_checksum_is_good_too(ring: KeyRing, database: KeyDatabase) -> None:
    key = ApiKey("0" * 16, "a-_B" * 10 + "xyz", has_checksum=False)
    principal = database.add(key)
    assert await ring.authenticate(str(key)) == principal


@pytest.mark.parametrize("text", [None, ""])
async def test_a_request_without_a_credential_gets_a_challenge_that_names_no_error(
    text: str | None, ring: KeyRing
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await ring.authenticate(text)
    assert refused.value.headers["www-authenticate"] == 'Bearer realm="tickwire"'


@pytest.mark.parametrize(
    "text",
    [
        *("nonsense", "tw_live_", "\x00", "ключ"),
        pytest.param("x" * 100_000, id="long"),
        pytest.param(str(keys.new_key())[:-1], id="cut short"),
    ],
)
async def test_a_malformed_key_is_refused_without_a_query(
    text: str, ring: KeyRing, database: KeyDatabase
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await ring.authenticate(text)
    challenge = refused.value.headers["www-authenticate"]
    assert challenge.startswith('Bearer realm="tickwire", error="invalid_token", error_description="')
    assert challenge.isascii()
    assert database.questions == 0


async def test_a_right_id_with_a_wrong_secret_is_refused(ring: KeyRing, database: KeyDatabase) -> None:
    key = keys.new_key()
    database.add(key)
    with pytest.raises(Unauthenticated) as refused:
        await ring.authenticate(str(ApiKey(key.id, keys.new_secret())))
    assert 'error="invalid_token"' in refused.value.headers["www-authenticate"]


async def test_a_key_is_looked_up_once_in_five_seconds(
    ring: KeyRing, database: KeyDatabase, clock: Clock
) -> None:
    key = keys.new_key()
    database.add(key)
    for _ in range(5):
        await ring.authenticate(str(key))
    assert database.questions == 1
    clock.now += 5.1
    await ring.authenticate(str(key))
    assert database.questions == 2


async def test_a_change_has_effect_after_five_seconds_or_at_once_here(
    ring: KeyRing, database: KeyDatabase, clock: Clock
) -> None:
    key = keys.new_key()
    database.add(key)
    await ring.authenticate(str(key))
    database.rows.clear()
    await ring.authenticate(str(key))
    await ring.forget()
    with pytest.raises(Unauthenticated):
        await ring.authenticate(str(key))


async def test_a_revoked_key_is_refused_after_five_seconds(
    ring: KeyRing, database: KeyDatabase, clock: Clock
) -> None:
    key = keys.new_key()
    database.add(key)
    await ring.authenticate(str(key))
    database.rows.clear()
    clock.now += 5.1
    with pytest.raises(Unauthenticated):
        await ring.authenticate(str(key))
    # Also when the database is away afterwards: it had said so.
    database.is_away = True
    clock.now += 5.1
    with pytest.raises(DatabaseUnavailable):
        await ring.authenticate(str(key))


async def test_the_five_seconds_begin_when_the_database_is_asked(
    ring: KeyRing, database: KeyDatabase, clock: Clock
) -> None:
    key = keys.new_key()
    database.add(key)
    database.may_answer.clear()
    asking = asyncio.create_task(ring.authenticate(str(key)))
    await asyncio.sleep(0)
    clock.now += 4
    database.may_answer.set()
    await asking
    clock.now += 2
    await ring.authenticate(str(key))
    assert database.questions == 2


async def test_a_remembered_key_expires_to_the_moment(
    ring: KeyRing, database: KeyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, expires_at = keys.new_key(), datetime.now(UTC) + timedelta(hours=1)
    database.add(key, expires_at=expires_at)
    await ring.authenticate(str(key))

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Later:
            return cls.fromtimestamp(expires_at.timestamp(), tz)

    monkeypatch.setattr(keyring, "datetime", Later)
    with pytest.raises(Unauthenticated, match="has expired"):
        await ring.authenticate(str(key))
    assert database.questions == 1


async def test_the_secret_before_a_rotation_works_until_the_overlap_ends_and_no_longer(
    ring: KeyRing, database: KeyDatabase
) -> None:
    old = keys.new_key()
    new = ApiKey(old.id, keys.new_secret())
    until = datetime.now(UTC) + timedelta(hours=1)
    database.add(new, previous=old, previous_until=until)
    assert (await ring.authenticate(str(new))).expires_at is None
    assert (await ring.authenticate(str(old))).expires_at == until
    await ring.forget()
    database.add(new, previous=old, previous_until=datetime.now(UTC))
    with pytest.raises(Unauthenticated):
        await ring.authenticate(str(old))
    assert await ring.authenticate(str(new))


async def test_a_known_key_works_for_a_while_without_the_database(
    ring: KeyRing, database: KeyDatabase, clock: Clock
) -> None:
    key = keys.new_key()
    database.add(key)
    await ring.authenticate(str(key))
    database.is_away = True
    clock.now += 600
    await ring.authenticate(str(key))
    clock.now += 400
    with pytest.raises(DatabaseUnavailable):
        await ring.authenticate(str(key))


async def test_a_key_that_is_not_known_needs_the_database(ring: KeyRing, database: KeyDatabase) -> None:
    database.is_away = True
    with pytest.raises(DatabaseUnavailable):
        await ring.authenticate(str(keys.new_key()))


async def test_only_one_request_in_two_seconds_asks_a_database_that_is_away(
    ring: KeyRing, database: KeyDatabase, clock: Clock
) -> None:
    key = keys.new_key()
    database.add(key)
    await ring.authenticate(str(key))
    database.is_away, database.questions = True, 0
    clock.now += 10
    for _ in range(20):
        await ring.authenticate(str(key))
    assert database.questions == 1
    clock.now += 2.1
    for _ in range(20):
        await ring.authenticate(str(key))
    assert database.questions == 2
    database.is_away = False
    clock.now += 2.1
    await ring.authenticate(str(key))
    assert database.questions == 3


async def test_a_known_key_does_not_wait_for_a_slow_database_whose_answer_counts_when_it_comes(
    ring: KeyRing, database: KeyDatabase, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "REFRESHED_WITHIN_S", 0.01)
    key = keys.new_key()
    owner = database.add(key)
    await ring.authenticate(str(key))
    database.questions = 0
    database.may_answer.clear()
    clock.now += 10
    together = await asyncio.gather(*(ring.authenticate(str(key)) for _ in range(20)))
    assert together == [owner] * 20
    assert await ring.authenticate(str(key)) == owner
    assert database.questions == 1
    database.rows.clear()
    database.may_answer.set()

    async def is_refused() -> bool:
        try:
            await ring.authenticate(str(key))
        except Unauthenticated:
            return True
        return False

    await until(is_refused)


async def test_a_slow_issuer_keeps_no_key_from_being_checked(
    token_ring: KeyRing,
    database: KeyDatabase,
    clock: Clock,
    slow_issuer: SlowIssuer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keyring, "REFRESHED_WITHIN_S", 0.01)
    key = keys.new_key()
    database.add(key)
    await token_ring.authenticate(str(key))
    signed_in = await token_ring.authenticate(token(1))
    slow_issuer.may_answer.clear()
    database.rows.clear()
    clock.now += 10
    assert await token_ring.authenticate(token(1)) == signed_in
    with pytest.raises(Unauthenticated):
        await token_ring.authenticate(str(key))
    slow_issuer.may_answer.set()


async def test_a_key_that_is_not_known_waits_a_limited_time_for_the_database(
    ring: KeyRing, database: KeyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "FOUND_WITHIN_S", 0.01)
    database.may_answer.clear()
    for _ in range(5):
        with pytest.raises(DatabaseUnavailable, match="could not be checked in time"):
            await ring.authenticate(str(keys.new_key()))


async def test_long_connections_learn_the_present_rights_of_their_keys_in_one_query(
    ring: KeyRing, database: KeyDatabase
) -> None:
    first, second, gone = keys.new_key(), keys.new_key(), keys.new_key()
    expected = {key.id: database.add(key) for key in (first, second)}
    assert await ring.current([first.id, second.id, gone.id]) == expected
    assert database.questions == 1
    database.is_away = True
    with pytest.raises(DatabaseUnavailable):
        await ring.current([first.id])


async def test_a_key_of_the_pepper_before_works_and_is_stored_under_the_present_one(
    database: KeyDatabase, clock: Clock
) -> None:
    untyped: Any = database
    key, rotated = keys.new_key(), keys.new_key()
    key = ApiKey(rotated.id, key.secret)
    until = datetime.now(UTC) + timedelta(hours=1)
    principal = database.add(key, previous=rotated, previous_until=until)
    both = KeyRing(untyped, "another pepper, of today", previous_pepper=PEPPER)
    # The secret that a rotation left has the same way over.
    assert (await both.authenticate(str(rotated))).user_id == principal.user_id
    assert (await both.authenticate(str(key))).user_id == principal.user_id

    after = KeyRing(untyped, "another pepper, of today")
    assert await after.authenticate(str(key)) == principal
    assert (await after.authenticate(str(rotated))).user_id == principal.user_id
    with pytest.raises(Unauthenticated):
        await KeyRing(untyped, PEPPER).authenticate(str(key))


async def test_a_wrong_secret_stays_wrong_under_two_peppers(database: KeyDatabase, clock: Clock) -> None:
    untyped: Any = database
    key = keys.new_key()
    database.add(key)
    before = dict(database.rows)
    both = KeyRing(untyped, "another pepper, of today", previous_pepper=PEPPER)
    with pytest.raises(Unauthenticated):
        await both.authenticate(str(ApiKey(key.id, keys.new_secret())))
    assert database.rows == before
