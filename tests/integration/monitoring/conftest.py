"""A real stack with its Prometheus, one at a time: each file of tests has its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from native import stack as native_stack
from native.stack import Stack
from support.watching import Watcher


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with native_stack.start(tmp_path_factory.mktemp("watched")) as running:
        yield running


@pytest.fixture(scope="module")
async def watcher(stack: Stack) -> AsyncIterator[Watcher]:
    # Hundreds of questions are asked at once: what waits for its turn here is not late.
    timeout = httpx.Timeout(20, pool=None)
    async with httpx.AsyncClient(base_url=stack.prometheus.url, timeout=timeout) as client:
        yield Watcher(client)
