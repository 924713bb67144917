"""The number of connections that known callers may have."""

from __future__ import annotations

import pytest

from chassis.errors import Overloaded, TooManyAtOnce
from gateway.realtime.connection_limit import ConnectionLimit


def test_connections_are_limited_in_total_and_by_owner() -> None:
    limit = ConnectionLimit(total=4, per_owner=3)
    places = [limit.take("1") for _ in range(3)]
    with pytest.raises(TooManyAtOnce) as refused:
        limit.take("1")
    assert refused.value.retry_after_s
    limit.take("2")
    with pytest.raises(Overloaded):
        limit.require_room("3")
    for give_back in places:
        give_back()
    assert limit.owners == {"2": 1}


def test_while_all_places_are_taken_only_an_owner_with_few_is_told_that_the_gateway_is_full() -> None:
    limit = ConnectionLimit(total=256, per_owner=128)
    for number in range(128):
        limit.take(str(number))
        limit.take(str(number))
    with pytest.raises(TooManyAtOnce):
        limit.take("0")
    with pytest.raises(Overloaded):
        limit.take("none")
    smaller = ConnectionLimit(total=4, per_owner=2)
    for owner in ("a", "a", "b", "c"):
        smaller.take(owner)
    with pytest.raises(TooManyAtOnce, match="One owner may have 2"):
        smaller.take("a")


def test_owners_that_take_all_they_get_leave_places_for_the_next_ones() -> None:
    limit = ConnectionLimit(total=5_000, per_owner=2_500)
    taken: list[int] = []
    for number in range(6):
        taken.append(0)
        try:
            while True:
                limit.take(str(number))
                taken[-1] += 1
        except TooManyAtOnce:
            continue
    assert taken[:3] == [2_500, 1_250, 417]
    assert min(taken) >= 39
    assert sum(taken) < 4_500
    # The last ones are for owners with few.
    for number in range(100, 112):
        for _ in range(39):
            limit.take(str(number))
