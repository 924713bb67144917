"""The keys of an issuer: fetched when they are needed, rarely, and within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from chassis.errors import Unavailable
from gateway.identity.issuer_keys import IssuerKeys, is_safe
from support.doubles.issuer import Issuer, public_jwk, rsa_key
from support.waiting import until


@pytest.fixture
async def keys(issuer: Issuer) -> AsyncIterator[IssuerKeys]:
    keys = IssuerKeys(issuer.url)
    yield keys
    await keys.close()


@pytest.fixture
async def eager(issuer: Issuer) -> AsyncIterator[IssuerKeys]:
    """Return issuer keys that may be fetched again at once."""
    keys = IssuerKeys(issuer.url, cooldown_s=0)
    yield keys
    await keys.close()


async def test_keys_are_fetched_once(keys: IssuerKeys, issuer: Issuer) -> None:
    for _ in range(5):
        assert await keys.find("one", "RS256") is not None
    assert issuer.asked == 1


async def test_a_new_key_is_found_when_the_first_token_names_it(eager: IssuerKeys, issuer: Issuer) -> None:
    assert await eager.find("one", "RS256") is not None
    issuer.keys = [public_jwk(rsa_key("two"), kid="two")]
    assert await eager.find("two", "RS256") is not None
    assert await eager.find("one", "RS256") is None, "the issuer has withdrawn it"


async def test_any_number_of_keys_that_do_not_exist_makes_few_requests(
    keys: IssuerKeys, issuer: Issuer
) -> None:
    assert await keys.find("one", "RS256") is not None
    assert await asyncio.gather(*(keys.find(f"none-{n}", "RS256") for n in range(200))) == [None] * 200
    assert issuer.asked == 1


async def test_tokens_that_come_together_share_one_request(keys: IssuerKeys, issuer: Issuer) -> None:
    issuer.may_answer.clear()
    waiting = [asyncio.create_task(keys.find("one", "RS256")) for _ in range(50)]
    await asyncio.sleep(0)
    issuer.may_answer.set()
    assert None not in await asyncio.gather(*waiting)
    assert issuer.asked == 1


async def test_while_the_issuer_is_away_its_keys_stay_good(eager: IssuerKeys, issuer: Issuer) -> None:
    assert await eager.find("one", "RS256") is not None
    issuer.status = 503
    assert await eager.find("two", "RS256") is None
    assert await eager.find("one", "RS256") is not None


async def test_a_key_without_an_id_is_used_for_tokens_without_one(eager: IssuerKeys, issuer: Issuer) -> None:
    issuer.keys = [public_jwk(rsa_key("one"))]
    assert await eager.find(None, "RS256") is not None
    issuer.keys = [public_jwk(rsa_key("one"), kid="a"), public_jwk(rsa_key("two"), kid="b")]
    assert await eager.find("a", "RS256") is not None
    assert await eager.find(None, "RS256") is None


async def test_keys_for_other_uses_or_with_a_secret_are_not_used(keys: IssuerKeys, issuer: Issuer) -> None:
    issuer.keys = [
        public_jwk(rsa_key("one"), kid="encrypts", use="enc"),
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
        {"kty": "RSA", "kid": "broken"},
        public_jwk(rsa_key("one"), kid="other", alg="RS512"),
    ]
    for kid in ("encrypts", "shared", "broken", "other"):
        assert await keys.find(kid, "RS256") is None


@pytest.mark.parametrize(
    "broken",
    [
        {"status": 500},
        {"status": 302},
        {"body": b"<html>"},
        {"body": b"[]"},
        {"body": b'{"keys":7}'},
        {"body": b'{"keys":[' + b",".join([b"{}"] * 101) + b"]}"},
        {"body": b" " * (300 * 1024)},
        {"discovered": {"issuer": "https://evil.example.com"}},
        {"discovered": {"jwks_uri": "http://keys.example.com/"}},
        {"discovered": {"jwks_uri": None}},
    ],
)
async def test_without_keys_from_the_issuer_a_token_is_neither_accepted_nor_refused(
    keys: IssuerKeys, issuer: Issuer, broken: dict[str, object]
) -> None:
    for name, value in broken.items():
        setattr(issuer, name, value)
    with pytest.raises(Unavailable, match="issuer"):
        await keys.find("one", "RS256")


async def test_an_issuer_that_does_not_answer_is_given_up_soon(issuer: Issuer) -> None:
    issuer.may_answer.clear()
    keys = IssuerKeys(issuer.url, fetch_s=0.05)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(keys.find("one", "RS256"), 2)
    await keys.close()


async def test_a_caller_that_goes_away_does_not_take_the_keys_of_others(
    keys: IssuerKeys, issuer: Issuer
) -> None:
    issuer.may_answer.clear()
    first, second = [asyncio.create_task(keys.find("one", "RS256")) for _ in range(2)]
    await until(lambda: _asked(issuer))
    first.cancel()
    issuer.may_answer.set()
    assert await second is not None


async def _asked(issuer: Issuer) -> bool:
    # The discovery document is what is asked for first: its connection is open.
    return issuer.connected > 0


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://id.example.com", True),
        ("http://127.0.0.1:9000/realm", True),
        ("http://localhost:9000", True),
        ("http://[::1]:9000", True),
        ("http://id.example.com", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("http://127.0.0.1@example.com", False),
        ("ftp://127.0.0.1", False),
    ],
)
def test_keys_are_fetched_only_where_nobody_can_change_them_on_the_way(url: str, expected: bool) -> None:
    assert is_safe(url) is expected


async def test_callers_that_leave_early_have_the_keys_fetched_once(
    keys: IssuerKeys, eager: IssuerKeys, issuer: Issuer
) -> None:
    assert await eager.find("one", "RS256") is not None
    for_once = issuer.connected
    issuer.may_answer.clear()
    for _ in range(5):
        leaving = asyncio.create_task(keys.find("none", "RS256"))
        await until(lambda: issuer.connected > for_once)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    issuer.may_answer.set()
    assert await keys.find("one", "RS256") is not None
    assert (issuer.connected, issuer.asked) == (2 * for_once, 2)
