"""Measure how long a worker takes to find and claim its next chunk, beside very many that wait."""

from __future__ import annotations

import time
from dataclasses import dataclass

import asyncpg

from batch_processor.execution import claim_repository
from batch_processor.execution.lanes import Lanes
from benchmarks.servers import database
from chassis import migrations, queries
from chassis.postgres import Postgres
from support.waiting_chunks import plant

_BATCHES = 10_000
# Of as many owners, with ten chunks each.
_FEW = 30
# Connections plan a statement some times before they keep a plan.
_WARM_UP = 10
_ROUNDS = 200
# As a worker with the usual sixteen slots considers.
_OWNERS = 32
_LEASE_S = 15


@dataclass(frozen=True)
class DispatchTimes:
    """The seconds of each dispatch while few batches wait, and while `batches` of ten chunks do."""

    few: list[float]
    many: list[float]
    batches: int


async def compare(*, scale: float) -> DispatchTimes:
    """Plant ready chunks in a database of their own, and claim some of them one by one."""
    rounds, batches = max(20, round(_ROUNDS * scale)), max(100, round(_BATCHES * scale))
    queries.load("batch_processor", "chassis")
    async with database("batch_processor") as dsn:
        await migrations.migrate_at(dsn, "batch_processor")
        postgres = Postgres(dsn)
        await postgres.open()
        try:
            await _plant(dsn, 0, _FEW)
            few = await _dispatch(postgres, rounds)
            await _plant(dsn, _FEW, batches)
            many = await _dispatch(postgres, rounds)
        finally:
            await postgres.close()
    return DispatchTimes(few, many, batches)


async def _plant(dsn: str, first: int, end: int) -> None:
    connection = await asyncpg.connect(dsn, command_timeout=120)
    try:
        await plant(connection, first, end)
        # Else the server would do so meanwhile.
        await connection.execute("VACUUM (ANALYZE) batches, chunks")
    finally:
        await connection.close()


async def _dispatch(postgres: Postgres, rounds: int) -> list[float]:
    """Return the seconds of each look for owners and claim of a chunk, committed as a worker does."""
    lanes, found = Lanes(), []
    for _ in range(_WARM_UP + rounds):
        async with postgres.connection() as connection:
            began = time.perf_counter()
            owners = await lanes.look(connection, most=_OWNERS)
            taken = await claim_repository.claim(
                connection,
                owners,
                most=1,
                for_any=1,
                lease_s=_LEASE_S,
                in_flight_from=lanes.in_flight_from,
                light=["echo"],
            )
            found.append(time.perf_counter() - began)
            assert len(taken) == 1, "a chunk was ready"
            await claim_repository.finish(connection, taken)
    return found[_WARM_UP:]
