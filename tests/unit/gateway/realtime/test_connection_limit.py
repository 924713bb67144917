"""The number of connections that known callers may have."""

from __future__ import annotations

import pytest

from chassis.errors import Overloaded
from gateway.realtime.connection_limit import ConnectionLimit


def test_connections_are_limited_in_total_and_by_owner() -> None:
    limit = ConnectionLimit(total=4, per_owner=3)
    places = [limit.take("1") for _ in range(3)]
    with pytest.raises(Overloaded) as refused:
        limit.take("1")
    assert refused.value.retry_after_s
    limit.take("2")
    with pytest.raises(Overloaded):
        limit.require_room("3")
    for give_back in places:
        give_back()
    assert limit.owners == {"2": 1}
