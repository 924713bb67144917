"""A Prometheus whose answers the test chooses."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.doubles import prometheus
from support.doubles.prometheus import Double


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    async with prometheus.start() as running:
        yield running
