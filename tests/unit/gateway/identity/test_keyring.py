"""Authentication without a query for each request, and without a database for a while."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.errors import DatabaseUnavailable, Unauthenticated
from contracts.scopes import Scope
from gateway.http.principal import Principal
from gateway.identity import keyring, keys
from gateway.identity.keyring import KeyRing
from gateway.identity.keys import ApiKey

PEPPER = "a pepper of the tests"


class Repository:
    """Keys in memory; counts the questions, and can be away."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[bytes, Principal]] = {}
        self.questions = 0
        self.is_away = False

    def add(self, key: ApiKey) -> Principal:
        principal = Principal(7, "Ann", "member", key.id, frozenset({Scope("quotes:read")}))
        self.rows[key.id] = (keys.digest(PEPPER, key), principal)
        return principal

    async def find_key(self, key_id: str) -> tuple[bytes, Principal] | None:
        self.questions += 1
        if self.is_away:
            raise DatabaseUnavailable("away")
        return self.rows.get(key_id)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(keyring, "time", clock)
    return clock


@pytest.fixture
def repository() -> Repository:
    return Repository()


@pytest.fixture
def ring(repository: Repository, clock: Clock) -> KeyRing:
    untyped: Any = repository
    return KeyRing(untyped, PEPPER)


async def test_a_good_key_is_its_owner(ring: KeyRing, repository: Repository) -> None:
    key = keys.new_key()
    principal = repository.add(key)
    assert await ring.authenticate(str(key)) == principal


@pytest.mark.parametrize("text", [None, "", "nonsense", "tw_live_", "\x00", "ключ"])
async def test_no_key_is_refused_without_a_query(
    text: str | None, ring: KeyRing, repository: Repository
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await ring.authenticate(text)
    assert refused.value.headers["www-authenticate"].startswith("Bearer")
    assert repository.questions == 0


async def test_a_right_id_with_a_wrong_secret_is_refused(ring: KeyRing, repository: Repository) -> None:
    key = keys.new_key()
    repository.add(key)
    with pytest.raises(Unauthenticated):
        await ring.authenticate(str(ApiKey(key.id, "A" * 43)))


async def test_a_key_is_looked_up_once_in_five_seconds(
    ring: KeyRing, repository: Repository, clock: Clock
) -> None:
    key = keys.new_key()
    repository.add(key)
    for _ in range(5):
        await ring.authenticate(str(key))
    assert repository.questions == 1
    clock.now += 5.1
    await ring.authenticate(str(key))
    assert repository.questions == 2


async def test_a_revoked_key_stops_working_after_five_seconds_or_at_once_here(
    ring: KeyRing, repository: Repository, clock: Clock
) -> None:
    key = keys.new_key()
    repository.add(key)
    await ring.authenticate(str(key))
    repository.rows.clear()
    await ring.authenticate(str(key))
    ring.forget()
    with pytest.raises(Unauthenticated):
        await ring.authenticate(str(key))


async def test_a_known_key_works_for_a_while_without_the_database(
    ring: KeyRing, repository: Repository, clock: Clock
) -> None:
    key = keys.new_key()
    repository.add(key)
    await ring.authenticate(str(key))
    repository.is_away = True
    clock.now += 600
    await ring.authenticate(str(key))
    clock.now += 400
    with pytest.raises(DatabaseUnavailable):
        await ring.authenticate(str(key))


async def test_a_key_that_is_not_known_needs_the_database(ring: KeyRing, repository: Repository) -> None:
    repository.is_away = True
    with pytest.raises(DatabaseUnavailable):
        await ring.authenticate(str(keys.new_key()))


async def test_only_one_request_in_two_seconds_asks_a_database_that_is_away(
    ring: KeyRing, repository: Repository, clock: Clock
) -> None:
    key = keys.new_key()
    repository.add(key)
    await ring.authenticate(str(key))
    repository.is_away, repository.questions = True, 0
    clock.now += 10
    for _ in range(20):
        await ring.authenticate(str(key))
    assert repository.questions == 1
    clock.now += 2.1
    for _ in range(20):
        await ring.authenticate(str(key))
    assert repository.questions == 2
    repository.is_away = False
    clock.now += 2.1
    await ring.authenticate(str(key))
    assert repository.questions == 3


async def test_the_memory_holds_no_usable_key(ring: KeyRing, repository: Repository) -> None:
    key = keys.new_key()
    repository.add(key)
    await ring.authenticate(str(key))
    assert key.secret not in repr(vars(ring))


async def test_no_more_than_ten_thousand_keys_are_remembered(ring: KeyRing, repository: Repository) -> None:
    for number in range(10_050):
        with pytest.raises(Unauthenticated):
            await ring.authenticate(f"wrong-{number}")
    remembered: Any = vars(ring)["_known"]
    assert len(remembered) == 10_000


async def test_a_long_connection_learns_that_its_key_was_revoked(
    ring: KeyRing, repository: Repository
) -> None:
    key = keys.new_key()
    principal = repository.add(key)
    assert await ring.find_principal(key.id) == principal
    repository.is_away = True
    with pytest.raises(DatabaseUnavailable):
        await ring.find_principal(key.id)
    repository.is_away = False
    repository.rows.clear()
    assert await ring.find_principal(key.id) is None
