"""The metrics of a link to the broker, and connections that nobody holds any more."""

from __future__ import annotations

import asyncio
import gc
import socket

from prometheus_client import REGISTRY
from yarl import URL

from chassis.broker.rabbitmq import Link, connect


async def _opened(_: Link) -> None: ...


def test_a_link_is_measured_before_it_was_ever_lost_or_blocked() -> None:
    Link("amqp://127.0.0.1/", name="never-held", on_open=_opened)
    for name in ("tickwire_broker_blocked", "tickwire_broker_connected"):
        assert REGISTRY.get_sample_value(name, {"link": "never-held"}) == 0


def test_a_connection_that_was_cancelled_or_refused_needs_no_loop_to_be_forgotten() -> None:
    async def cancelled(url: URL) -> asyncio.Task[object]:
        connecting = asyncio.create_task(connect(url))
        guest, _ = await asyncio.get_running_loop().sock_accept(listener)
        connecting.cancel()
        await asyncio.wait({connecting})
        assert connecting.cancelled()
        guest.close()
        listener.close()
        return connecting

    async def refused(url: URL) -> object:
        (error,) = await asyncio.gather(connect(url), return_exceptions=True)
        assert isinstance(error, OSError)
        return error

    with socket.create_server(("127.0.0.1", 0)) as listener, asyncio.Runner() as runner:
        listener.setblocking(False)
        url = URL(f"amqp://127.0.0.1:{listener.getsockname()[1]}/")
        # The traceback of an error holds what it was about, here until no loop is running.
        remains = [runner.run(cancelled(url)), runner.run(refused(url))]
        remains.clear()
        gc.collect()
        assert asyncio.all_tasks(runner.get_loop()) == set(), "something still wants to be closed"
