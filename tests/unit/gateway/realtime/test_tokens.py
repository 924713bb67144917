"""Short-lived tokens: signed, bounded, and with no more rights than their key has when they are used."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis import shares
from chassis.errors import Forbidden, Unauthenticated
from contracts.scopes import Scope
from gateway.http.principal import Principal
from gateway.realtime import tokens
from gateway.realtime.tokens import Grant, TokenService

KEYS = tokens.signing_keys("a pepper for the tests")
ANN = Principal(7, "Ann", "member", "k7", frozenset({Scope.CHAT_READ, Scope.QUOTES_READ}))


class UsableKeys:
    """The keys that may be used now."""

    def __init__(self) -> None:
        self.found: dict[str, Principal] = {"k7": ANN}
        self.overlap_ends: datetime | None = None
        self.shares: list[str] = []

    async def find(self, key_id: str) -> Principal | None:
        self.shares.append(shares.current.get())
        return self.found.get(key_id)

    async def authenticate(self, text: str | None, address: str | None = None) -> Principal:
        if text != "tw_live_good":
            raise Unauthenticated("The API key is not known.")
        return replace(ANN, expires_at=self.overlap_ends)


@pytest.fixture
def held() -> UsableKeys:
    return UsableKeys()


@pytest.fixture
def service(held: UsableKeys) -> TokenService:
    return TokenService("a pepper for the tests", authenticate=held.authenticate, find=held.find)


NAMES = st.none() | st.frozensets(st.text(max_size=20), max_size=4)


@given(st.builds(Grant, st.text(max_size=20), st.integers(2, 2**40), NAMES, NAMES))
def test_a_token_is_read_back_as_it_was_signed(grant: Grant) -> None:
    assert tokens.read(KEYS, tokens.sign(KEYS[0], grant), now=1) == grant


@given(st.data())
def test_a_token_that_was_changed_anywhere_is_refused(data: st.DataObject) -> None:
    token = tokens.sign(KEYS[0], Grant("k7", 2**33, None, frozenset({"chat:lobby"})))
    at = data.draw(st.integers(len(tokens.PREFIX), len(token) - 1))
    other = data.draw(st.characters().filter(lambda c: c != token[at]))
    changed = token[:at] + other + token[at + 1 :]
    with pytest.raises(Unauthenticated):
        tokens.read(KEYS, changed, now=1)


@pytest.mark.parametrize("text", ["", ".", "a", "a.b", "..", "é.ü", "\ud800.x", "x.\ud800", "x" * 9000])
def test_a_text_that_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens.read(KEYS, tokens.PREFIX + text, now=1)


def test_a_token_of_another_pepper_or_after_its_end_is_refused() -> None:
    token = tokens.sign(KEYS[0], Grant("k7", 100, None, None))
    with pytest.raises(Unauthenticated):
        tokens.read(tokens.signing_keys("another pepper"), token, now=1)
    with pytest.raises(Unauthenticated) as over:
        tokens.read(KEYS, token, now=100)
    assert "expired" in over.value.detail


async def test_a_token_stands_for_its_key_within_its_bounds(service: TokenService) -> None:
    token, expires_at = service.issue(ANN, ttl_s=60, scopes={Scope.CHAT_READ}, channels={"chat:lobby"})
    assert tokens.read(KEYS, token, now=1).owner_id == ANN.owner_id
    access = await service.authenticate(token)
    assert access.principal == ANN
    assert access.expires_at == expires_at <= time.time() + 60
    assert access.may(Scope.CHAT_READ, "chat:lobby")
    assert not access.may(Scope.CHAT_READ, "chat:other")
    assert not access.may(Scope.QUOTES_READ, "chat:lobby")


@pytest.mark.parametrize(("owner_id", "share"), [("7", "7"), ("", "k7")])
async def test_the_key_of_a_token_is_looked_up_in_the_share_of_its_owner(
    held: UsableKeys, service: TokenService, owner_id: str, share: str
) -> None:
    await service.authenticate(tokens.sign(KEYS[0], Grant("k7", 2**33, None, None, owner_id)))
    assert held.shares == [share]


async def test_a_token_has_no_right_that_its_key_has_lost(service: TokenService, held: UsableKeys) -> None:
    token, _ = service.issue(ANN, ttl_s=60, scopes={Scope.CHAT_READ})
    held.found["k7"] = Principal(7, "Ann", "member", "k7", frozenset())
    assert not (await service.authenticate(token)).may(Scope.CHAT_READ, "chat:lobby")
    held.found.clear()
    with pytest.raises(Unauthenticated):
        await service.authenticate(token)


def test_a_token_ends_with_the_credential_that_it_was_made_with(service: TokenService) -> None:
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=20)
    _, expires_at = service.issue(replace(ANN, expires_at=ends), ttl_s=60)
    assert expires_at == int(ends.timestamp())
    _, expires_at = service.issue(replace(ANN, expires_at=ends), ttl_s=5)
    assert expires_at < int(ends.timestamp())


def test_a_token_is_not_made_with_a_right_that_the_key_lacks(service: TokenService) -> None:
    with pytest.raises(Forbidden) as error:
        service.issue(ANN, ttl_s=60, scopes={Scope.EMAILS_SEND})
    assert "emails:send" in error.value.detail


async def test_a_key_has_no_bounds_beside_its_own(service: TokenService) -> None:
    access = await service.authenticate("tw_live_good")
    assert (access.scopes, access.channels, access.expires_at) == (None, None, None)
    for text in (None, "", "tw_live_bad"):
        with pytest.raises(Unauthenticated):
            await service.authenticate(text)


async def test_a_token_of_the_pepper_before_a_rotation_is_valid_until_its_end(
    held: UsableKeys, service: TokenService
) -> None:
    token, _ = service.issue(ANN, ttl_s=600)
    rotated = TokenService(
        "the next pepper",
        previous_pepper="a pepper for the tests",
        authenticate=held.authenticate,
        find=held.find,
    )
    assert (await rotated.authenticate(token)).principal == ANN
    fresh, _ = rotated.issue(ANN, ttl_s=600)
    with pytest.raises(Unauthenticated):
        await service.authenticate(fresh)


async def test_a_connection_with_the_previous_secret_of_a_key_ends_with_the_overlap(
    held: UsableKeys, service: TokenService
) -> None:
    held.overlap_ends = datetime.now(UTC) + timedelta(hours=1)
    access = await service.authenticate("tw_live_good")
    assert access.expires_at == held.overlap_ends.timestamp()
    stream = await service.authenticate_stream("tw_live_good")
    assert (stream.ends_at, stream.scopes, stream.channels) == (access.expires_at, ANN.scopes, None)
