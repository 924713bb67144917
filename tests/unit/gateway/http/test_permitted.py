"""Uploads go on for as long as their senders have the right to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from chassis.errors import DatabaseUnavailable, Forbidden, ServiceError, Unauthenticated
from contracts.scopes import Scope
from gateway.http import permitted
from gateway.http.permitted import while_permitted
from gateway.http.principal import Principal
from support.served import MEMBER

SENDER = replace(MEMBER, scopes=frozenset({Scope.BATCHES_WRITE}))


@pytest.fixture
def always_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the rights looked at after each part."""
    monkeypatch.setattr(permitted, "CHECK_EVERY_S", -1.0)


class Rights:
    """The rights of a sender at each look: a caller or an error, the last one for good."""

    def __init__(self, *found: Principal | ServiceError) -> None:
        self._found = list(found)
        self.looks = 0

    async def __call__(self, _: Principal) -> Principal:
        self.looks += 1
        found = self._found.pop(0) if len(self._found) > 1 else self._found[0]
        if isinstance(found, ServiceError):
            raise found
        return found


async def received(rights: Rights) -> list[bytes]:
    """Return three parts of an upload that is sent with these rights."""

    async def parts() -> AsyncIterator[bytes]:
        for part in (b"a", b"b", b"c"):
            yield part

    return [part async for part in while_permitted(parts(), SENDER, Scope.BATCHES_WRITE, rights)]


async def test_an_upload_that_is_soon_over_is_not_looked_at_again() -> None:
    rights = Rights(Unauthenticated("The key was revoked."))
    assert (await received(rights), rights.looks) == ([b"a", b"b", b"c"], 0)


@pytest.mark.usefixtures("always_checked")
async def test_the_rights_are_looked_at_while_the_parts_arrive_and_at_the_end() -> None:
    rights = Rights(SENDER)
    assert (await received(rights), rights.looks) == ([b"a", b"b", b"c"], 4)


@pytest.mark.usefixtures("always_checked")
@pytest.mark.parametrize("looks", [1, 3, 4])
async def test_an_upload_ends_with_the_key_or_the_scope_of_its_sender(looks: int) -> None:
    before = [SENDER] * (looks - 1)
    with pytest.raises(Unauthenticated):
        await received(Rights(*before, Unauthenticated("The key was revoked.")))
    with pytest.raises(Forbidden):
        await received(Rights(*before, replace(SENDER, scopes=frozenset())))


@pytest.mark.usefixtures("always_checked")
async def test_an_upload_goes_on_while_the_database_is_away_but_not_beyond_its_end() -> None:
    away = DatabaseUnavailable("It is away.")
    assert await received(Rights(away, away, away, SENDER)) == [b"a", b"b", b"c"]
    with pytest.raises(DatabaseUnavailable):
        await received(Rights(away))
