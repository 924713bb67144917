"""How many connections are let in, of whom."""

from __future__ import annotations

import pytest

from chassis.errors import Overloaded
from gateway.realtime.connection_limit import Bounds, ConnectionLimit


@pytest.fixture
def limit() -> ConnectionLimit:
    return ConnectionLimit(Bounds(total=4, per_owner=3, strangers=3, strangers_per_address=2))


def test_strangers_take_no_place_of_known_callers(limit: ConnectionLimit) -> None:
    for address in ("a", "a", "b"):
        limit.enter(address, "websocket")
    with pytest.raises(Overloaded) as refused:
        limit.enter("c", "websocket")
    assert refused.value.retry_after_s
    for owner in ("1", "1", "1", "2"):
        limit.take(owner, "sse")


def test_one_address_and_one_owner_have_their_share_only(limit: ConnectionLimit) -> None:
    places = [limit.enter("a", "websocket") for _ in range(2)]
    with pytest.raises(Overloaded):
        limit.enter("a", "websocket")
    for place in places:
        place.admit("1")
    limit.enter("a", "websocket").admit("1")
    with pytest.raises(Overloaded):
        limit.enter("a", "websocket").admit("1")
    limit.enter("b", "websocket").admit("2")
    with pytest.raises(Overloaded):
        limit.take("3", "sse")


def test_a_place_comes_back_once_wherever_it_was(limit: ConnectionLimit) -> None:
    stranger, known = limit.enter("a", "websocket"), limit.enter("a", "websocket")
    known.admit("1")
    known.admit("1")
    give_back = limit.take("1", "sse")
    for _ in range(2):
        stranger.give_back()
        known.give_back()
    give_back()
    assert (limit.owners, limit.strangers) == ({}, {})


def test_a_stranger_that_is_not_admitted_keeps_its_place_until_it_leaves(limit: ConnectionLimit) -> None:
    for _ in range(3):
        limit.take("1", "sse")
    place = limit.enter("a", "websocket")
    with pytest.raises(Overloaded):
        place.admit("1")
    assert limit.strangers["a"] == 1
    place.give_back()
    assert limit.strangers == {}


@pytest.mark.parametrize(("total", "strangers"), [(1, 1), (5000, 400)])
def test_shares_follow_the_settings_and_are_never_nothing(total: int, strangers: int) -> None:
    bounds = Bounds.of(total, strangers)
    assert 1 <= bounds.per_owner <= total
    assert 1 <= bounds.strangers_per_address <= strangers
