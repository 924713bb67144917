"""Quotes: the gateway's whole path against a bare Quart route, and against Quart with the RPC pattern."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.load import LoadResult, measure, median
from benchmarks.programs import answering, python
from native.ports import free_port
from native.stack import Stack


@dataclass(frozen=True)
class QuoteRates:
    """Medians of the rounds of one run."""

    gateway: LoadResult
    bare: LoadResult
    pattern: LoadResult


async def compare(stack: Stack, *, rounds: int = 3, seconds: int = 4) -> QuoteRates:
    """Measure the three in turns, so that noise of the machine falls on all of them."""
    bare_port, pattern_port = free_port(), free_port()
    broker = stack.rabbitmq.url
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    urls = {
        "gateway": f"{stack.url}/v1/stocks/AAPL",
        "bare": f"http://127.0.0.1:{bare_port}/v1/stocks/AAPL",
        "pattern": f"http://127.0.0.1:{pattern_port}/v1/stocks/AAPL",
    }
    found: dict[str, list[LoadResult]] = {name: [] for name in urls}
    async with (
        python("-m", "benchmarks.peers.bare_quart", str(bare_port)),
        python("-m", "benchmarks.peers.rpc_pattern", "work", broker),
        python("-m", "benchmarks.peers.rpc_pattern", "serve", str(pattern_port), broker),
    ):
        for url in urls.values():
            await answering(url, headers=headers)
        for _ in range(rounds):
            for name, url in urls.items():
                found[name].append(await measure(url, seconds=seconds, headers=headers))
    return QuoteRates(**{name: median(values) for name, values in found.items()})
