"""How many connections are let in."""

from __future__ import annotations

import pytest

from chassis.errors import Overloaded
from gateway.realtime.sockets import Doorman


def test_no_more_connections_are_let_in_than_fit_and_places_come_back() -> None:
    doorman = Doorman(2)
    with doorman.admit("websocket"), doorman.admit("sse"):
        with pytest.raises(Overloaded) as refused, doorman.admit("websocket"):
            pass
        assert refused.value.retry_after_s
        with pytest.raises(Overloaded):
            doorman.require_room()
    doorman.require_room()
    for _ in range(5):
        with pytest.raises(RuntimeError), doorman.admit("websocket"):
            raise RuntimeError("connection failed")
    with doorman.admit("websocket"), doorman.admit("websocket"):
        pass
