"""Empty databases for tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg
from hypothesis import HealthCheck, settings

FreshDatabase = Callable[[], Awaitable[str]]


# How long an example takes says something about this machine, nothing about the product.
settings.register_profile(
    "untimed", parent=settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


settings.load_profile("untimed")


async def drop(url: str, name: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()
