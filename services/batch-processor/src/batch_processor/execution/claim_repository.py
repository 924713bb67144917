"""Claims of chunks, owner by owner, by statement. Every function works on the caller's connection."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from uuid import UUID

from batch_processor.execution.claims import ChunkKey, Claim, Loaded, RemainingItems
from batch_processor.execution.lane_repository import Lane
from batch_processor.execution.running_chunk import StoredItem
from chassis import queries
from chassis.postgres import Connection

_SQL = queries.of("batch_processor")
# The most bytes of one chunk in memory; further items are loaded when the chunk is claimed again.
_MOST_BYTES = 4 * 1024 * 1024
# The most tasks that share the slot of another one, and the transaction of its result.
MOST_RIDERS = 100
# The most bytes of each of them: sixteen slots may have as many.
MOST_RIDER_BYTES = 16 * 1024
_CLAIM_FIELDS = tuple(field.name for field in fields(Claim))


async def claim(
    connection: Connection,
    lanes: Sequence[Lane],
    *,
    most: int,
    for_any: int,
    lease_s: float,
    in_flight_from: int = 0,
    light: Collection[str] = (),
    paused: Collection[str] = (),
) -> list[Claim]:
    """Claim up to `most` chunks of `lanes` in fair turns; `for_any` of them for owners with running chunks.

    No running chunk has a stamp before `in_flight_from`. Tasks of the operations `light` bring others along.
    No chunk of the operations `paused` is claimed.
    """
    if not lanes:
        return []
    columns = [list(column) for column in zip(*lanes, strict=True)]
    bounds = most, for_any, lease_s, in_flight_from
    arguments = *bounds, list(light), MOST_RIDERS, list(paused), MOST_RIDER_BYTES
    rows = await connection.fetch(_SQL["claim_chunks"], *columns, *arguments)
    return [Claim(**{name: row[name] for name in _CLAIM_FIELDS}) for row in rows]


async def load(connection: Connection, claims: Sequence[Claim]) -> list[Loaded]:
    """Return the items of the chunks that have no result yet, in input order, as many as fit into memory."""
    found: dict[ChunkKey, list[StoredItem]] = {claim.key: [] for claim in claims}
    ranges = [claim for claim in claims if claim.positions is None]
    if ranges:
        columns = zip(
            *((c.batch_id, c.first_position, c.last_position, c.is_new) for c in ranges), strict=True
        )
        rows = await connection.fetch(_SQL["load_items"], *map(list, columns), _MOST_BYTES)
        for claim, (positions, payloads) in zip(ranges, rows, strict=True):
            found[claim.key] += map(StoredItem, positions, payloads)
    loaded = []
    for claim in claims:
        if claim.positions is not None:
            rows = await connection.fetch(_SQL["load_listed"], claim.batch_id, claim.positions, _MOST_BYTES)
            large = [row["position"] for row in rows if row["payload"] is None]
            lost = claim.lost if claim.suspect else 0
            rest = (
                RemainingItems.of(large, claim.attempt, lost=lost, suspect=claim.suspect, run=claim.run)
                if large
                else None
            )
            loaded.append(Loaded(claim, [StoredItem(*row) for row in rows[: len(rows) - len(large)]], rest))
            continue
        items, beyond = found[claim.key], None
        if items and items[-1].position < claim.last_position:
            # The other items did not fit, or have ended; nearly every chunk is loaded to its end.
            after, last = items[-1].position, claim.last_position
            left = await connection.fetchval(_SQL["count_left"], claim.batch_id, after, last)
            run = 0 if claim.is_new else claim.run
            beyond = RemainingItems(after + 1, last, None, left, claim.attempt, run=run) if left else None
        loaded.append(Loaded(claim, items, beyond))
    return loaded


async def finish(connection: Connection, claims: Collection[Claim]) -> set[ChunkKey]:
    """Remove chunks that are done; return those that were still this worker's."""
    rows = await connection.fetch(_SQL["finish_chunks"], *_columns(claims)) if claims else []
    return {(row["batch_id"], row["number"]) for row in rows}


async def renew(
    connection: Connection,
    claims: Sequence[Claim],
    *,
    states: Sequence[str],
    done: Sequence[int],
    lease_s: float,
) -> dict[ChunkKey, str]:
    """Renew the leases of chunks, or make them `ready` again; return the status of the batch of each kept."""
    if not claims:
        return {}
    rows = await connection.fetch(_SQL["renew_chunks"], *_columns(claims), states, done, lease_s)
    return {(row["batch_id"], row["number"]): row["status"] for row in rows}


async def shrink(connection: Connection, claim: Claim, positions: Sequence[int]) -> None:
    """Reduce the chunk to these positions; other chunks have the rest."""
    await connection.execute(_SQL["shrink_chunk"], claim.batch_id, claim.number, claim.run, positions)


async def give_back(connection: Connection, claims: Collection[Claim], *, lost: int = 0) -> None:
    """Return chunks that were claimed here; `lost` is added to their counts of lost claims."""
    await connection.execute(_SQL["return_chunks"], *_columns(claims), lost)


async def create_chunk(
    connection: Connection, batch_id: UUID, number: int, rest: RemainingItems, *, gate: str | None = None
) -> None:
    """Create a chunk of some items of a claimed one; with a `gate`, it waits for its limits."""
    await connection.execute(
        _SQL["create_chunk"],
        batch_id,
        number,
        rest.attempt,
        rest.first_position,
        rest.last_position,
        rest.positions,
        rest.items,
        rest.delay_s,
        rest.lost,
        rest.suspect,
        gate,
        rest.run,
    )


def _columns(claims: Collection[Claim]) -> tuple[list[UUID], list[int], list[int]]:
    return [c.batch_id for c in claims], [c.number for c in claims], [c.run for c in claims]
