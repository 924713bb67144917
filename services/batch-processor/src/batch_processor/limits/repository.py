"""Chunks that wait for their limits, by statement. Every function works on the caller's connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias
from uuid import UUID

import orjson

from batch_processor.limits.rules import LimitRule
from batch_processor.limits.sharing import OwnerQueue, Passage, WaitingChunk
from chassis import queries
from chassis.postgres import Connection, affected_rows

_SQL = queries.of("batch_processor")
# Counting more each second would cost more than it tells.
_MOST_COUNTED = 10_000

# Returns the limits of a batch, by its id, operation and options, and how many of its items begin together.
Rules: TypeAlias = Callable[[UUID, str, str], tuple[tuple[LimitRule, ...], int]]


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of each key: items in hand, those of them that no worker has claimed, and charges.

    No chunk that was let through and is not done has a stamp before `passed_from`.
    """

    of_keys: Mapping[str, tuple[int, int, int]]
    passed_from: int


async def lock(connection: Connection) -> bool:
    """Return whether this transaction is the only one that lets chunks through now."""
    return bool(await connection.fetchval(_SQL["lock_admission"]))


async def has_waiting(connection: Connection) -> bool:
    """Return whether any chunk waits for its limits."""
    return bool(await connection.fetchval(_SQL["has_waiting"]))


async def find_waiting_owners(connection: Connection, after: str, *, most: int) -> list[str]:
    """Return up to `most` owners with chunks that wait, those that follow `after`."""
    return [row["owner_id"] for row in await connection.fetch(_SQL["find_waiting_owners"], after, most)]


async def find_waiting(
    connection: Connection, after: Mapping[str, str], rules: Rules, *, most: int, chunks: int
) -> tuple[list[OwnerQueue], dict[str, str]]:
    """Return up to `most` queues of each owner, each with its first chunks, about `chunks` in total.

    They are those behind the gate that `after` has for the owner. Return also the last gate of each owner
    that has more.
    """
    rows = await connection.fetch(_SQL["find_waiting"], list(after), list(after.values()), most, chunks)
    found: list[OwnerQueue] = []
    for (owner_id, _), of_pair in groupby(rows, key=lambda row: (row["owner_id"], row["gate"])):
        heads = [row for row in of_pair if row["operation"] is not None]
        if not heads:
            continue
        limits, piece = rules(heads[0]["batch_id"], heads[0]["operation"], heads[0]["options"])
        waiting = [
            WaitingChunk(
                batch_id=row["batch_id"],
                number=row["number"],
                first_position=row["first_position"],
                last_position=row["last_position"],
                positions=row["left_positions"],
                # A chunk without items left ends when a worker has claimed it.
                items=len(row["left_positions"]) or 1
                if row["left_positions"] is not None
                else row["remaining"],
            )
            for row in heads
        ]
        found.append(OwnerQueue(owner_id, limits, piece, waiting))
    return found, {row["owner_id"]: row["gate"] for row in rows if row["has_more_behind"]}


async def measure(connection: Connection, limits: Iterable[LimitRule], *, passed_from: int) -> Usage:
    """Return the usage of all keys."""
    rated = [limit for limit in limits if limit.rate is not None]
    keys, windows = [limit.key for limit in rated], [limit.window_s for limit in rated]
    rows = await connection.fetch(_SQL["measure_keys"], passed_from, keys, windows)
    used = {row["key"]: (row["in_flight"], row["unclaimed"], row["charged"]) for row in rows if row["key"]}
    return Usage(used, rows[0]["passed_from"])


async def let_through(connection: Connection, passages: Sequence[Passage]) -> int:
    """Make the passing pieces ready, cut from chunks that keep waiting; return how many items passed.

    A chunk that another transaction has locked or cancelled meanwhile stays as it is.
    """
    wanted = {(passage.chunk.batch_id, passage.chunk.number): passage for passage in passages}
    rows = await connection.fetch(_SQL["lock_waiting"], *map(list, zip(*wanted, strict=True)))
    locked = [wanted[row["batch_id"], row["number"]] for row in rows]
    whole = [_marked(p, number=p.chunk.number) for p in locked if p.is_whole]
    if whole:
        await connection.execute(_SQL["let_through"], _json(whole))
    cut = [passage for passage in locked if not passage.is_whole]
    if cut:
        await _cut(connection, cut)
    return sum(passage.items for passage in locked)


async def _cut(connection: Connection, passages: Sequence[Passage]) -> None:
    added: dict[UUID, int] = {}
    for passage in passages:
        added[passage.chunk.batch_id] = added.get(passage.chunk.batch_id, 0) + len(passage.pieces)
    rows = await connection.fetch(_SQL["number_chunks"], list(added), list(added.values()))
    numbers = {row["id"]: row["first"] for row in rows}
    pieces = []
    for passage in passages:
        start = 0
        for size in passage.pieces:
            part = passage.chunk.part(start, size)
            number = numbers[passage.chunk.batch_id]
            numbers[passage.chunk.batch_id] += 1
            pieces.append(_marked(passage, number=number) | {"whole": passage.chunk.number} | part)
            start += size
    await connection.execute(_SQL["add_pieces"], _json(pieces))
    rests = [
        {"batch_id": p.chunk.batch_id, "number": p.chunk.number}
        | p.chunk.part(p.items, p.chunk.items - p.items)
        for p in passages
        if p.items < p.chunk.items
    ]
    await connection.execute(_SQL["shrink_waiting"], _json(rests))
    # Nothing is left of the other chunks, which would wait for room that they do not need.
    emptied = [(p.chunk.batch_id, p.chunk.number) for p in passages if p.items == p.chunk.items]
    if emptied:
        await connection.execute(_SQL["remove_emptied"], *map(list, zip(*emptied, strict=True)))


def _marked(passage: Passage, *, number: int) -> dict[str, object]:
    return {
        "batch_id": passage.chunk.batch_id,
        "number": number,
        "keys": [limit.key for limit in passage.limits],
        "slots_s": [limit.slot_s for limit in passage.limits],
    }


def _json(rows: Sequence[Mapping[str, object]]) -> str:
    # `default`: the driver returns ids of a type of its own.
    return orjson.dumps(rows, default=str).decode()


async def gate_chunks(connection: Connection, operations: Sequence[str], *, most: int) -> int:
    """Make chunks of `operations` wait that were created before these had limits; return how many."""
    tag = await connection.execute(_SQL["gate_chunks"], operations, most)
    return affected_rows(tag)


async def count_waiting(connection: Connection) -> int:
    """Return how many chunks wait for their limits, counted up to 10,000."""
    return int(await connection.fetchval(_SQL["count_waiting"], _MOST_COUNTED))


async def remove_charges(connection: Connection) -> None:
    """Remove charges that no longer count for any rate."""
    await connection.execute(_SQL["remove_charges"])
