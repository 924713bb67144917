"""Sockets and subscriptions take no more memory than the container of the gateway has room for."""

from __future__ import annotations

import gc
import linecache
import tracemalloc

from benchmarks import fan_out
from contracts.scopes import Scope
from gateway.http.principal import Principal
from gateway.publishing.hub import SUBSCRIPTION_BYTES
from gateway.realtime.access import Access
from gateway.realtime.commands import MOST_CHANNELS
from gateway.realtime.connection_limit import SOCKET_BYTES
from support.doubles.realtime import Broker, Client, Gateway, Rooms, connected

ANN = Access(Principal(1, "Ann", "member", "k", frozenset(Scope)))


def test_a_socket_with_a_subscription_takes_no_more_memory_than_it_is_counted_for() -> None:
    with fan_out.serving(fan_out.run_gateway) as (control, port):
        # What is made once, and stays.
        clients = [fan_out.connected(port) for _ in range(50)]
        resident = []
        for more in (0, 300):
            clients += [fan_out.connected(port) for _ in range(more)]
            control.send(0)
            resident.append(control.recv()[0])
        for client in clients:
            client.close()
    assert resident[1] - resident[0] <= 300 * SOCKET_BYTES


async def subscribe_to_all(client: Client, first: int) -> None:
    for number in range(first, first + MOST_CHANNELS):
        await client.ask(subscribe={"channel": f"chat:room-{number}"})


async def test_a_subscription_takes_no_more_memory_than_it_is_counted_for() -> None:
    gateway = Gateway(Rooms({f"room-{number}": "epoch-1" for number in range(3 * MOST_CHANNELS)}), Broker())
    clients = [await connected(gateway, ANN) for _ in range(3)]
    await subscribe_to_all(clients[0], 0)
    gc.collect()
    tracemalloc.start()
    try:
        for number, client in enumerate(clients[1:], start=1):
            await subscribe_to_all(client, number * MOST_CHANNELS)
        gc.collect()
        # The sources that a watchdog reads for the stack of this long test are no subscription's.
        of_sources = tracemalloc.Filter(False, linecache.__file__)
        snapshot = tracemalloc.take_snapshot().filter_traces([of_sources])
    finally:
        tracemalloc.stop()
    taken = sum(statistic.size for statistic in snapshot.statistics("filename"))
    assert taken <= 2 * MOST_CHANNELS * SUBSCRIPTION_BYTES
