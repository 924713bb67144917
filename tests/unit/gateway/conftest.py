"""Gateways that share rooms and a broker in memory."""

from __future__ import annotations

import pytest

from contracts.scopes import Scope
from gateway.http.principal import Principal
from gateway.realtime.access import Access
from support.doubles.realtime import Broker, Client, Gateway, Rooms, connected


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture
def exchange() -> Broker:
    return Broker()


@pytest.fixture
def gateway(rooms: Rooms, exchange: Broker) -> Gateway:
    return Gateway(rooms, exchange)


@pytest.fixture
def other_gateway(rooms: Rooms, exchange: Broker) -> Gateway:
    return Gateway(rooms, exchange)


@pytest.fixture
def ann() -> Access:
    """Return somebody who may use every channel."""
    scopes = {
        Scope.QUOTES_READ,
        Scope.ALERTS_READ,
        Scope.CHAT_READ,
        Scope.CHAT_WRITE,
        Scope.BATCHES_READ,
        Scope.EMAILS_READ,
    }
    return Access(Principal(7, "Ann", "member", "k7", frozenset(scopes)))


@pytest.fixture
async def client(gateway: Gateway, ann: Access) -> Client:
    return await connected(gateway, ann)


@pytest.fixture
def nobody() -> Access:
    return Access(Principal(8, "Nobody", "member", "k8", frozenset()))
