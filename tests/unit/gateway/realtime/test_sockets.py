"""How many connections are let in."""

from __future__ import annotations

import pytest

from chassis.errors import Overloaded
from gateway.realtime.sockets import ConnectionLimit


def test_no_more_connections_are_let_in_than_fit_and_places_come_back() -> None:
    limit = ConnectionLimit(2)
    with limit.admit("websocket"), limit.admit("sse"):
        with pytest.raises(Overloaded) as refused, limit.admit("websocket"):
            pass
        assert refused.value.retry_after_s
        with pytest.raises(Overloaded):
            limit.require_room()
    limit.require_room()
    for _ in range(5):
        with pytest.raises(RuntimeError), limit.admit("websocket"):
            raise RuntimeError("connection failed")
    with limit.admit("websocket"), limit.admit("websocket"):
        pass
