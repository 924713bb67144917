"""Gateways that share rooms and a broker in memory."""

from __future__ import annotations

import pytest

from contracts.scopes import Scope
from gateway.http.principal import Principal
from support.doubles.realtime import Exchange, Gateway, Rooms


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
def gateway(rooms: Rooms, exchange: Exchange) -> Gateway:
    return Gateway(rooms, exchange)


@pytest.fixture
def other_gateway(rooms: Rooms, exchange: Exchange) -> Gateway:
    return Gateway(rooms, exchange)


@pytest.fixture
def ann() -> Principal:
    return Principal(
        7,
        "Ann",
        "member",
        "k7",
        frozenset({Scope("quotes:read"), Scope("chat:write"), Scope("batches:read")}),
    )


@pytest.fixture
def nobody() -> Principal:
    return Principal(8, "Nobody", "member", "k8", frozenset())
