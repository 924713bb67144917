"""Places for connections: counted in all, by address, and apart without a key."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from typing import Any

import pytest

from chassis.http1.admission import PLACE, Admission, Place, address_of, mark_authenticated
from chassis.http1.limits import ConnectionLimits
from chassis.http1.refusals import ListenerFull, TooManyConnections


class AdmittedConnection:
    def __init__(self, *, is_answering: bool = False) -> None:
        self.is_answering = is_answering
        self.is_broken = False
        self.seen = 0.0
        self.has_given_way = False

    def enforce_deadlines(self, now: float) -> None:
        self.seen = now
        if self.is_broken:
            raise RuntimeError("a fault of one connection")

    def give_way(self) -> bool:
        self.has_given_way = not self.is_answering
        return self.has_given_way


async def test_there_are_no_more_connections_than_places() -> None:
    admission, loop = Admission(ConnectionLimits(most=2)), asyncio.get_running_loop()
    first = AdmittedConnection()
    admission.open(first, loop)
    admission.open(AdmittedConnection(), loop)
    with pytest.raises(ListenerFull):
        admission.open(AdmittedConnection(), loop)
    admission.close(first)
    admission.open(AdmittedConnection(), loop)


async def test_a_newcomer_at_a_full_listener_takes_the_place_of_one_of_its_own_address() -> None:
    # Owners have many of the places, so that those without a key do not even have their part.
    admission, loop = Admission(ConnectionLimits(most=8, per_address=8)), asyncio.get_running_loop()
    slow, here = AdmittedConnection(), list[AdmittedConnection]()

    def come(connection: AdmittedConnection, address: str) -> Place:
        admission.open(connection, loop, address)
        return admission.take(address, connection)

    for number in range(4):
        come(AdmittedConnection(), "192.0.2.9").authenticated(f"owner {number}")
    come(slow, "192.0.2.1")
    for _ in range(50):
        here.append(AdmittedConnection())
        come(here[-1], "10.0.0.1")
        for gone in [one for one in here if one.has_given_way]:
            here.remove(gone)
            admission.close(gone)
    assert not slow.has_given_way
    assert len(here) == 3
    for connection in (*here, slow):
        admission.close(connection)


async def test_the_deadlines_of_very_many_connections_are_checked_a_part_in_each_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chassis.http1.admission.LOOK_EVERY_S", 0.01)
    admission, loop = Admission(ConnectionLimits(most=2_000)), asyncio.get_running_loop()
    connections = [AdmittedConnection() for _ in range(1_000)]
    for connection in connections:
        admission.open(connection, loop)
    connections[500].is_broken = True
    in_each_pass: list[int] = []
    async with asyncio.timeout(30):
        while not all(connection.seen for connection in connections):
            before = sum(bool(connection.seen) for connection in connections)
            await asyncio.sleep(0)
            in_each_pass.append(sum(bool(connection.seen) for connection in connections) - before)
    assert max(in_each_pass) <= 100
    for connection in connections:
        admission.close(connection)


def test_an_address_that_has_used_its_share_leaves_the_rest_to_others() -> None:
    admission = Admission(ConnectionLimits(most=10, per_address=2))
    places = [admission.take("10.0.0.1") for _ in range(2)]
    with pytest.raises(TooManyConnections):
        admission.take("::ffff:10.0.0.1")
    admission.take("10.0.0.2")
    places[0].release()
    places[0].release()
    admission.take("10.0.0.1")
    with pytest.raises(TooManyConnections):
        admission.take("10.0.0.1")


def test_a_network_of_ipv6_is_one_address() -> None:
    assert address_of("2001:db8::1") == address_of("2001:db8::ffff:1") != address_of("2001:db8:0:1::1")
    assert address_of("::ffff:10.0.0.1") == address_of("10.0.0.1")


def test_connections_without_a_key_have_a_part_of_the_places() -> None:
    admission = Admission(ConnectionLimits(most=8, per_address=4, unauthenticated_share=0.25))
    place = admission.take("10.0.0.1")
    with pytest.raises(TooManyConnections):
        admission.take("10.0.0.1")
    other = admission.take("10.0.0.2")
    with pytest.raises(ListenerFull):
        admission.take("10.0.0.3")
    mark_authenticated({PLACE: place}, "ann")
    mark_authenticated({"state": {PLACE: place}}, "ann")
    mark_authenticated({"state": {}}, "ann")
    admission.take("10.0.0.1")
    other.release()
    admission.take("10.0.0.3")


def test_the_oldest_connection_without_a_key_gives_way_to_a_newer_one() -> None:
    admission = Admission(ConnectionLimits(most=16, per_address=16, unauthenticated_share=0.25))
    holders = [AdmittedConnection(is_answering=number == 0) for number in range(4)]
    places = [admission.take(f"10.0.0.{number}", holder) for number, holder in enumerate(holders)]
    places[1].authenticated("ann")
    admission.take("10.0.1.1", AdmittedConnection())
    assert not any(holder.has_given_way for holder in holders)
    admission.take("10.0.1.2", AdmittedConnection())
    assert [holder.has_given_way for holder in holders] == [False, False, True, False]
    admission.take("10.0.1.3", AdmittedConnection())
    assert holders[3].has_given_way
    assert admission.unauthenticated.total == 4
    places[2].release()
    assert admission.unauthenticated.total == 4


def test_an_idle_connection_of_an_address_gives_way_to_a_newer_one_of_the_same_address() -> None:
    admission = Admission(ConnectionLimits(most=64, per_address=8, unauthenticated_share=0.5))
    other = AdmittedConnection()
    admission.take("10.0.0.2", other)
    holders = [AdmittedConnection(is_answering=number == 0) for number in range(4)]
    for holder in holders:
        admission.take("10.0.0.1", holder)
    admission.take("10.0.0.1", AdmittedConnection())
    assert [holder.has_given_way for holder in holders] == [False, True, False, False]
    assert not other.has_given_way
    assert admission.unauthenticated.by_address["10.0.0.1"] == 4


def test_addresses_that_open_more_and_more_push_out_their_own_and_not_that_of_another_one() -> None:
    admission = Admission(ConnectionLimits(most=32, per_address=32, unauthenticated_share=0.25))
    slow = AdmittedConnection()
    admission.take("192.0.2.1", slow)
    for number in range(100):
        admission.take(f"10.0.0.{number % 2}", AdmittedConnection())
    assert not slow.has_given_way
    assert admission.unauthenticated.by_address["192.0.2.1"] == 1
    # Whoever has fewer than its part still finds a place.
    admission.take("192.0.2.2", AdmittedConnection())
    assert admission.unauthenticated.by_address["192.0.2.2"] == 1


def test_an_address_whose_connections_are_all_being_answered_gets_the_place_of_an_idle_one() -> None:
    admission = Admission(ConnectionLimits(most=16, per_address=16, unauthenticated_share=0.25))
    idle = AdmittedConnection()
    admission.take("192.0.2.1", idle)
    for _ in range(4):
        admission.take("10.0.0.1", AdmittedConnection(is_answering=True))
    assert idle.has_given_way


def test_no_connection_gives_way_while_all_are_being_answered() -> None:
    admission = Admission(ConnectionLimits(most=16, per_address=16, unauthenticated_share=0.25))
    for number in range(4):
        admission.take(f"10.0.0.{number}", AdmittedConnection(is_answering=True))
    with pytest.raises(ListenerFull):
        admission.take("10.0.1.1", AdmittedConnection())


def test_a_place_that_is_given_back_is_forgotten() -> None:
    admission = Admission(ConnectionLimits(most=8, per_address=4))
    for number in range(100):
        place = admission.take(f"10.0.0.{number}")
        if number % 2:
            place.authenticated("ann")
        place.release()
        place.authenticated("ann")
    assert (admission.held.total, len(admission.held.by_address)) == (0, 0)
    assert (admission.unauthenticated.total, len(admission.unauthenticated.by_address)) == (0, 0)


PROXIES: dict[str, Any] = {"trusted_proxies": (ipaddress.ip_network("10.0.0.0/8"),)}


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ([b"192.0.2.1"], "192.0.2.1"),
        ([b"6.6.6.6, 192.0.2.1"], "192.0.2.1"),
        ([b"6.6.6.6, 192.0.2.1, 10.0.0.9"], "192.0.2.1"),
        ([b"6.6.6.6", b"192.0.2.1 ,10.0.0.9"], "192.0.2.1"),
        ([b"2001:db8::1"], "2001:db8::1"),
        ([b"unknown"], "10.0.0.1"),
        ([b"192.0.2.1, unknown"], "10.0.0.1"),
        ([b"10.0.0.9"], "10.0.0.1"),
        ([b"192.0.2.1" + b", 10.0.0.9" * 19], "192.0.2.1"),
        # Of thousands of addresses the last ones are looked at.
        ([b"192.0.2.1" + b", 10.0.0.9" * 20], "10.0.0.1"),
        ([b""], "10.0.0.1"),
        ([], "10.0.0.1"),
    ],
)
def test_the_client_of_a_proxy_is_the_last_address_that_is_no_proxy(
    forwarded: list[bytes], expected: str
) -> None:
    admission = Admission(ConnectionLimits(**PROXIES))
    assert admission.is_trusted("10.1.2.3")
    assert not admission.is_trusted("192.0.2.1")
    assert admission.client_of([(b"x-forwarded-for", value) for value in forwarded], "10.0.0.1") == expected


def test_an_owner_has_its_share_of_an_address_and_of_all_and_leaves_the_rest_to_others() -> None:
    limits = ConnectionLimits(most=16, per_address=8, unauthenticated_share=0.25, owner_share=0.75)
    admission = Admission(limits)
    held: list[Place] = []
    for _ in range(6):
        held.append(admission.take("192.0.2.1"))
        held[-1].authenticated("ann")
    over = admission.take("192.0.2.1", AdmittedConnection())
    with pytest.raises(TooManyConnections, match="limit of open connections of one owner"):
        over.authenticated("ann")
    assert not over.is_authenticated
    # Another owner behind the same address comes in, and so does a third over what the first holds too much.
    for owner in ("bob", "eve"):
        admission.take("192.0.2.1", AdmittedConnection()).authenticated(owner)
    # From other addresses the owner comes to its share of all.
    for number in range(5):
        held.append(admission.take(f"192.0.2.{number + 2}"))
        held[-1].authenticated("ann")
    with pytest.raises(TooManyConnections):
        admission.take("192.0.2.9").authenticated("ann")
    admission.take("192.0.2.10").authenticated("bob")
    for place in held:
        place.release()
    admission.take("192.0.2.9").authenticated("ann")


@pytest.mark.parametrize("addresses", [1, 16])
def test_owners_that_take_all_connections_they_get_leave_some_for_others(addresses: int) -> None:
    limits = ConnectionLimits(most=128, per_address=128, unauthenticated_share=0.25, owner_share=0.75)
    admission, taken = Admission(limits), Counter[str]()
    for owner in ("ann", "bob", "cid", "dan"):
        for number in range(200):
            try:
                place = admission.take(f"192.0.2.{number % addresses}", AdmittedConnection())
                place.authenticated(owner)
            except TooManyConnections:
                break
            taken[owner] += 1
    assert taken["ann"] == 96
    assert taken.total() < 128
    for number in range(8):
        admission.take("192.0.2.0", AdmittedConnection()).authenticated(f"late {number}")
