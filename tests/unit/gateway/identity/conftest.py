"""A key ring on a table of keys in memory, whose time the test sets, and an issuer of access tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.identity import failures, keyring
from gateway.identity.keyring import KeyRing
from support.clocks import Clock
from support.doubles import issuer as issuers
from support.doubles.issuer import Issuer
from support.doubles.key_table import PEPPER, KeyDatabase
from support.doubles.signed_in import SlowIssuer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(keyring, "time", clock)
    monkeypatch.setattr(failures, "time", clock)
    return clock


@pytest.fixture
async def database() -> KeyDatabase:
    return KeyDatabase()


@pytest.fixture
async def ring(database: KeyDatabase, clock: Clock) -> KeyRing:
    untyped: Any = database
    return KeyRing(untyped, PEPPER)


@pytest.fixture
async def slow_issuer() -> SlowIssuer:
    """Return an issuer that is not slow before a test says so."""
    slow_issuer = SlowIssuer()
    slow_issuer.may_answer.set()
    return slow_issuer


@pytest.fixture
async def token_ring(database: KeyDatabase, clock: Clock, slow_issuer: SlowIssuer) -> KeyRing:
    untyped: Any = database
    tokens: Any = slow_issuer
    return KeyRing(untyped, PEPPER, tokens=tokens, subjects=tokens)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with issuers.serving() as serving:
        yield serving
