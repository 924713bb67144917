"""Quotes that replicas share through memcached, which nobody has to trust or to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import memcachio
import pytest
from prometheus_client import REGISTRY

from chassis.cache import Cache
from chassis.deadlines import Deadline
from native.memcached import Memcached
from stock_data.providers.cached import CachedQuotes
from stock_data.providers.shared import SharedQuotes
from support.counting_provider import Counting, DateClock

Replica = Callable[..., CachedQuotes]

SECRET = "the database's address, which all replicas know"


@pytest.fixture
def provider() -> Counting:
    return Counting()


@pytest.fixture
def clock() -> DateClock:
    return DateClock()


@pytest.fixture
async def raw(memcached_server: Memcached) -> AsyncIterator[memcachio.Client[bytes]]:
    host, port = memcached_server.address.split(":")
    client = memcachio.Client[bytes]((host, int(port)), decode_responses=False)
    await client.flushall()
    yield client
    await client.flushall()


@pytest.fixture
async def replica(
    memcached_server: Memcached, provider: Counting, clock: DateClock, raw: memcachio.Client[bytes]
) -> AsyncIterator[Replica]:
    """Create a replica with its own memory, which shares the quotes that it fetches."""
    caches: list[Cache] = []

    def make(*, address: str = memcached_server.address, secret: str = SECRET) -> CachedQuotes:
        caches.append(Cache(address, name="quotes", secret=secret, timeout_s=0.5))
        shared = SharedQuotes(caches[-1], provider.name, ttl_s=10)
        return CachedQuotes(provider, ttl_s=10, timeout_s=5, clock=clock, shared=shared)

    yield make
    for cache in caches:
        cache.close()


async def prices(replica: CachedQuotes, *symbols: str) -> list[int]:
    found = await replica.quotes(symbols, Deadline.after(5))
    return [int(found.quotes[symbol].price) for symbol in symbols]


def reads(outcome: str) -> float:
    return (
        REGISTRY.get_sample_value("tickwire_cache_reads_total", {"cache": "quotes", "outcome": outcome}) or 0
    )


async def test_a_quote_that_one_replica_has_fetched_costs_the_other_no_call(
    replica: Replica, provider: Counting, clock: DateClock
) -> None:
    first, second = replica(), replica()
    assert await prices(first, "A", "B") == [1, 1]
    clock.pass_s(4)
    assert await prices(second, "A", "B", "C") == [1, 1, 2]
    assert provider.asked == [["A", "B"], ["C"]]


async def test_a_shared_quote_has_the_delay_since_it_was_fetched(replica: Replica, clock: DateClock) -> None:
    await prices(replica(), "A")
    clock.pass_s(4)
    second = replica()
    for _ in range(2):
        found = await second.quotes(["A"], Deadline.after(5))
        assert found.quotes["A"].delayed_by_s == 4


async def test_sharing_a_quote_does_not_extend_its_lifetime(
    replica: Replica, provider: Counting, clock: DateClock
) -> None:
    await prices(replica(), "A")
    clock.pass_s(8)
    second = replica()
    assert await prices(second, "A") == [1]
    clock.pass_s(4)
    assert await prices(second, "A") == [2]
    assert provider.asked == [["A"], ["A"]]


async def test_a_failure_of_the_provider_keeps_the_shared_quotes(
    replica: Replica, provider: Counting
) -> None:
    await prices(replica(), "A")
    provider.error = provider.outage
    found = await replica().quotes(["A", "B"], Deadline.after(5))
    assert (set(found.quotes), found.errors) == ({"A"}, {"B": provider.outage})


async def test_without_memcached_every_replica_asks_for_itself(
    replica: Replica, unused_tcp_port: int
) -> None:
    for price in (1, 2):
        assert await prices(replica(address=f"127.0.0.1:{unused_tcp_port}"), "A") == [price]


async def test_a_memcached_that_does_not_answer_is_not_asked_for_a_while(replica: Replica) -> None:
    connections: list[asyncio.StreamWriter] = []

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    errors = reads("error")
    silent = replica(address=f"{host}:{port}")
    assert await prices(silent, "A") == [1]
    assert await prices(silent, "B") == [2]
    # The second question did not wait for it again.
    assert reads("error") == errors + 1
    for writer in connections:
        writer.close()
    server.close()


async def test_an_entry_that_no_replica_has_signed_is_not_trusted(
    replica: Replica, provider: Counting, raw: memcachio.Client[bytes]
) -> None:
    await prices(replica(), "A", "B")
    await prices(replica(secret="another"), "C")
    of_a = (await raw.get("quotes:counting:A"))[b"quotes:counting:A"].value
    for symbol, poison in (("A", b"x"), ("B", of_a), ("D", of_a[:32] + b"{}")):
        await raw.set(f"quotes:counting:{symbol}", poison)
    forged = reads("forged")
    assert await prices(replica(), "A", "B", "C", "D") == [3, 3, 3, 3]
    assert reads("forged") == forged + 4


async def test_an_entry_of_an_unknown_shape_is_no_quote(
    replica: Replica, memcached_server: Memcached
) -> None:
    other_release = Cache(memcached_server.address, name="quotes", secret=SECRET)
    await other_release.set({"counting:A": b'{"quote": "in another shape"}'}, ttl_s=10)
    unreadable = reads("unreadable")
    assert await prices(replica(), "A") == [1]
    assert reads("unreadable") == unreadable + 1
    other_release.close()
