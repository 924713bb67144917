"""The speed of this machine in these minutes, beside that on which the wanted rates were set.

A shared machine may be half as fast in one hour as in the next. A rate that is asked for as such says little
then, so the same measure is taken of a program that never changes: a bare Quart route.
"""

from __future__ import annotations

from benchmarks.load import requests_per_second
from benchmarks.programs import answering, python
from native.ports import free_port

# Requests a second on the machine where the rates were set: 6,059 quotes a second were 0.74 of it.
THERE = 6_059 / 0.74
_SECONDS = 2


async def measure() -> float:
    """Return the rate of the bare route as a part of its rate there."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1/stocks/AAPL"
    async with python("-m", "benchmarks.peers.bare_quart", str(port)):
        await answering(url)
        return await requests_per_second(url, seconds=_SECONDS) / THERE
