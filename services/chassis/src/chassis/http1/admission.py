"""Limits on connections: in all, per address, and smaller ones for one owner and for those without a key."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter, defaultdict
from collections.abc import Iterator
from email.utils import formatdate
from itertools import islice
from typing import Any, Protocol

from chassis import beats, logging, metrics, shares
from chassis.http1.head import Fields
from chassis.http1.held_bytes import HeldBytes
from chassis.http1.limits import (
    LOOK_EVERY_S,
    WAITING_BYTES,
    ConnectionLimits,
)
from chassis.http1.refusals import ListenerFull, TooManyConnections
from chassis.loop_turns import LoopTurns

log = logging.get(__name__)

# Where an application finds the place of its connection: in the scope of a request, and in the `state` of
# the scope of a WebSocket.
PLACE = "tickwire.connection"
# A household or a server has at least an IPv6 network of this prefix length for itself.
_IPV6_PREFIX = 64
_RETRY_AFTER_S = 5.0
# An owner may have this many times the places that it leaves free; and, while one is free, one place in this
# many of all.
_WEIGHT = 6
_FEW = 128
# How many connections are asked to give way to a new one.
_MOST_ASKED = 8
# More proxies than a request passes; looking at the thousands of addresses that fit into a head takes 90 ms.
_MOST_HOPS = 20
_CHECKED_AT_ONCE = 50


def mark_authenticated(scope: Any, owner_id: str) -> None:
    """Tell the server that the connection of this ASGI scope has sent a valid key of `owner_id`.

    It then no longer takes one of the few places for unauthenticated connections, and stays open longer
    between requests. Raise `TooManyConnections` when the owner has its share of the places already; the
    connection then stays among those without a key. Under any other server, nothing happens.
    """
    place = scope.get(PLACE) or scope.get("state", {}).get(PLACE)
    if place is not None:
        place.authenticated(owner_id)


class GuardedConnection(Protocol):
    """A connection whose deadlines are checked periodically."""

    def enforce_deadlines(self, now: float) -> None:
        """End what has taken too long at the loop's time `now`."""

    def give_way(self) -> bool:
        """Close for a newer client and return True, unless a request is answered or has its turn soon."""


class Place:
    """The share of the limits that one client holds, until `release`."""

    __slots__ = ("_admission", "_is_released", "address", "owner_id")

    def __init__(self, admission: Admission, address: str) -> None:
        self._admission = admission
        self._is_released = False
        self.address = address
        # The owner of the first valid key that was sent over the connection.
        self.owner_id: str | None = None

    @property
    def is_authenticated(self) -> bool:
        """Whether the client has sent a valid key."""
        return self.owner_id is not None

    def authenticated(self, owner_id: str) -> None:
        """Release the place among the unauthenticated: the client has sent a valid key of the owner.

        Raise `TooManyConnections` when the owner has its share already.
        """
        if self.owner_id is None and not self._is_released:
            self._admission.give_to(owner_id, self.address)
            self.owner_id = owner_id
            self._admission.forget_stranger(self)

    def release(self) -> None:
        """Give the place of a connection back, once; further calls do nothing."""
        if self._is_released:
            return
        self._is_released = True
        self._admission.held.subtract_one(self.address)
        if self.owner_id is None:
            self._admission.forget_stranger(self)
        else:
            self._admission.take_from(self.owner_id, self.address)


class _Tally:
    """The number of places that are taken, in all and by address; an address without any is forgotten."""

    def __init__(self) -> None:
        self.total = 0
        self.by_address: Counter[str] = Counter()

    def count(self, address: str | None) -> int:
        """Return the number of places of an address, or of all."""
        return self.total if address is None else self.by_address[address]

    def add_one(self, address: str) -> None:
        self.total += 1
        self.by_address[address] += 1

    def subtract_one(self, address: str) -> None:
        self.total -= 1
        self.by_address[address] -= 1
        if self.by_address[address] <= 0:
            del self.by_address[address]


class Admission:
    """The connections of one listener and their limits. They read requests in `turns`."""

    def __init__(self, limits: ConnectionLimits, turns: LoopTurns | None = None) -> None:
        self.limits = limits
        self.turns = turns or LoopTurns()
        self.held = _Tally()
        self.unauthenticated = _Tally()
        self._owners: defaultdict[str, _Tally] = defaultdict(_Tally)
        # The places without a key and who holds them, oldest first: all of them, and those of each address.
        self._strangers: dict[Place, GuardedConnection | None] = {}
        self._strangers_at: defaultdict[str, dict[Place, GuardedConnection | None]] = defaultdict(dict)
        self._connections: set[GuardedConnection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.held_bytes = HeldBytes(WAITING_BYTES)
        # The `Date` field line of all responses of this second.
        self.date_line = b""

    def open(self, connection: GuardedConnection, loop: asyncio.AbstractEventLoop, host: str = "") -> None:
        """Count a connection from `host`. Raises `ListenerFull` if all places are taken and none gives way.

        Which one gives way is chosen as in `take`.
        """
        if len(self._connections) >= self.limits.most and not self._make_way_for(address_of(host)):
            raise ListenerFull(
                "connections", "All places for connections are taken.", retry_after_s=_RETRY_AFTER_S
            )
        self._connections.add(connection)
        metrics.HTTP_CONNECTIONS.inc()
        if self._timer is None:
            self._begin_second(loop)

    def close(self, connection: GuardedConnection) -> None:
        """Forget a connection, whether it was counted or not."""
        if connection in self._connections:
            self._connections.remove(connection)
            metrics.HTTP_CONNECTIONS.dec()

    def take(self, host: str, holder: GuardedConnection | None = None) -> Place:
        """Take a place for the client at `host` and its connection `holder`.

        Among connections without a key, the oldest one that is idle, or waits for its client, gives way to a
        newer one: first among those of the same address if it has its part of them, and else among all. So
        nobody keeps others out by holding connections, or pushes them out by opening more and more.
        Raises `TooManyConnections` or `ListenerFull`.
        """
        limits, address = self.limits, address_of(host)
        share = limits.unauthenticated_share
        neighbours = self._strangers_at.get(address, {})
        is_full = (
            len(neighbours) >= limits.per_address * share
            or self.held.by_address[address] >= limits.per_address
        )
        if is_full and not _make_way(neighbours):
            raise TooManyConnections(
                "address", "This address has too many open connections.", retry_after_s=_RETRY_AFTER_S
            )
        if self.unauthenticated.total >= limits.most * share and not self._make_way_for(address):
            raise ListenerFull(
                "unauthenticated",
                "All places for connections without a key are taken.",
                retry_after_s=_RETRY_AFTER_S,
            )
        self.held.add_one(address)
        self.unauthenticated.add_one(address)
        place = Place(self, address)
        self._strangers[place] = self._strangers_at[address][place] = holder
        return place

    def give_to(self, owner_id: str, address: str) -> None:
        """Count a connection of `address` as one of the owner. Raises `TooManyConnections`.

        Owners leave room for those that have none, or few (`shares.has_room`).
        """
        limits, owned = self.limits, self._owners.get(owner_id)
        for where, most in ((None, limits.most), (address, limits.per_address)):
            own = 0 if owned is None else owned.count(where)
            held = self.held.count(where) - self.unauthenticated.count(where)
            has_room = shares.has_room(own, held=held, most=most, few=max(1, most // _FEW), weight=_WEIGHT)
            if own >= most * limits.owner_share or not has_room:
                raise TooManyConnections(
                    "owner",
                    "You have reached the limit of open connections of one owner; close some, or use one for "
                    "several requests.",
                    retry_after_s=_RETRY_AFTER_S,
                )
        self._owners[owner_id].add_one(address)

    def take_from(self, owner_id: str, address: str) -> None:
        """Stop counting a connection of `address` as one of the owner."""
        owned = self._owners[owner_id]
        owned.subtract_one(address)
        if not owned.total:
            del self._owners[owner_id]

    def forget_stranger(self, place: Place) -> None:
        """Stop counting a place among those without a key."""
        self.unauthenticated.subtract_one(place.address)
        self._strangers.pop(place, None)
        self._strangers_at[place.address].pop(place, None)
        if not self._strangers_at[place.address]:
            del self._strangers_at[place.address]

    def _make_way_for(self, address: str) -> bool:
        """Close an idle connection without a key for one of `address`; return whether there was one."""
        neighbours = self._strangers_at.get(address, {})
        has_part = len(neighbours) * len(self._strangers_at) >= self.unauthenticated.total
        return (has_part and _make_way(neighbours)) or _make_way(self._strangers)

    def is_trusted(self, host: str) -> bool:
        """Return whether the peer `host` is a proxy whose forwarding headers are trusted."""
        if not self.limits.trusted_proxies:
            return False
        try:
            address = _unmapped(ipaddress.ip_address(host))
        except ValueError:
            return False
        return any(address in network for network in self.limits.trusted_proxies)

    def client_of(self, fields: Fields, peer: str) -> str:
        """Return the last address in `X-Forwarded-For` that is no trusted proxy, else `peer`.

        Of very many addresses the last ones are looked at: those before them may be anybody's.
        """
        values = [value for name, value in fields if name == b"x-forwarded-for"]
        hops = b",".join(values).decode("latin-1").rsplit(",", _MOST_HOPS)
        for hop in reversed(hops[-_MOST_HOPS:]):
            host = hop.strip()
            try:
                ipaddress.ip_address(host)
            except ValueError:
                break
            if not self.is_trusted(host):
                return host
        return peer

    def scheme_of(self, fields: Fields, scheme: str) -> str:
        """Return the scheme of the client as the proxy reports it; else `scheme`."""
        protocols = [value.lower() for name, value in fields if name == b"x-forwarded-proto"]
        return protocols[0].decode() if protocols in ([b"http"], [b"https"]) else scheme

    def _begin_second(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(beats.due_in_s(LOOK_EVERY_S), self._end_second, loop)
        self.date_line = f"date: {formatdate(usegmt=True)}\r\n".encode()

    def _end_second(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._connections:
            # The next timer comes first: whatever happens below, deadlines are checked again.
            self._begin_second(loop)
        self._enforce(iter(tuple(self._connections)), loop)

    def _enforce(self, connections: Iterator[GuardedConnection], loop: asyncio.AbstractEventLoop) -> None:
        """Check the deadlines of some connections, and of the next ones in the next pass of the loop.

        Thousands may have theirs in the same second, as after a restart: each is refused and closed.
        """
        now, seen = loop.time(), 0
        for connection in islice(connections, _CHECKED_AT_ONCE):
            seen += 1
            if connection not in self._connections:
                # It has ended meanwhile.
                continue
            try:
                connection.enforce_deadlines(now)
            except Exception as error:  # of one connection: the others have their deadlines, too
                log.error("the deadlines of a connection could not be checked", exc_info=error)
        if seen == _CHECKED_AT_ONCE:
            loop.call_soon(self._enforce, connections, loop)


def _make_way(strangers: dict[Place, GuardedConnection | None]) -> bool:
    """Close the oldest of `strangers` that gives way; return whether there was one."""
    for place, holder in tuple(islice(strangers.items(), _MOST_ASKED)):
        if holder is not None and holder.give_way():
            place.release()
            return True
        # It is in the middle of an answer: others are asked before it next time.
        strangers[place] = strangers.pop(place)
    return False


def address_of(host: str) -> str:
    """Return the unit that limits count as one address: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        address = _unmapped(ipaddress.ip_address(host))
    except ValueError:
        return host
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))


def _unmapped(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    # A listener on all addresses sees IPv4 clients in this form.
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
