"""A client of endpoints of every kind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from support.served import serving
from support.served_things import endpoints


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with serving(endpoints()) as client:
        yield client
