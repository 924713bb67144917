"""Lanes, and recipients that are in none yet, in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from chassis import queries
from chassis.postgres import Connection, Row, affected_rows
from contracts.mail import Stream
from emailer.sending.lanes import MailLane, Terms

_SQL = queries.of("emailer")

# The end of a snapshot, and the transactions that were running then.
Snapshot = tuple[int, Sequence[int]]


async def claim(
    connection: Connection,
    divided: Mapping[MailLane, int],
    *,
    due_from: Mapping[MailLane, datetime],
    most: int,
    terms: Terms,
) -> list[Row]:
    """Claim the recipients ready longest in each lane, up to its share; `was` is a row's status before.

    They are returned by due time. Nothing in a lane is due before its `due_from`.
    """
    rows = await connection.fetch(
        _SQL["claim_lanes"],
        [lane.stream for lane in divided],
        [lane.owner_id for lane in divided],
        [lane.domain for lane in divided],
        list(divided.values()),
        most,
        terms.holder,
        terms.lease_s,
        terms.most_bytes,
        [due_from[lane] for lane in divided],
        [terms.bytes_of.get(lane.owner_id, terms.most_bytes) for lane in divided],
    )
    # The order in which an UPDATE returns rows depends on its plan.
    return sorted(rows, key=lambda row: (row["was_due_at"], row["email_id"], row["position"]))


async def find_owners(connection: Connection, stream: Stream, *, behind: str, most: int) -> list[str]:
    """Return the next owners that have recipients in lanes of `stream`, by id."""
    rows = await connection.fetch(_SQL["find_owners"], stream, behind, most)
    return [row["owner_id"] for row in rows]


async def find_lanes(
    connection: Connection, stream: Stream, *, behind: Mapping[str, str], most: int
) -> list[MailLane]:
    """Return the next lanes, up to `most` each, of owners whose last domain is given by `behind`."""
    if not behind:
        return []
    rows = await connection.fetch(_SQL["find_lanes"], stream, list(behind), list(behind.values()), most)
    return [MailLane(stream, row["owner_id"], row["domain"]) for row in rows]


async def find_arrivals(connection: Connection, seen: Snapshot | None, *, most: int) -> list[Row]:
    """Return the lanes that have got recipients since the snapshot `seen`, each row with the present one.

    Of up to `most` recipients. Without any, one row has the snapshot alone.
    """
    return await connection.fetch(_SQL["find_arrivals"], *(seen or (None, [])), most)


async def count_ready(
    connection: Connection, lanes: Sequence[tuple[MailLane, datetime]], *, most: int
) -> int:
    """Return how many recipients are ready in `lanes`, each with the time before which none is due."""
    count: int = await connection.fetchval(_SQL["measure_ready"], *_columns(lanes), most)
    return count


async def longest_wait_s(connection: Connection, lanes: Sequence[tuple[MailLane, datetime]]) -> float:
    """Return for how many seconds the first recipient of `lanes` has been ready."""
    wait_s: float = await connection.fetchval(_SQL["oldest_of_lanes"], *_columns(lanes))
    return wait_s


async def look_for_recipients(connection: Connection, due_from: datetime, seen: Snapshot | None) -> Row:
    """Return when the next recipient in no lane is due and expires, and whether lanes have got some."""
    row = await connection.fetchrow(_SQL["look_for_recipients"], due_from, *(seen or (None, [])))
    assert row is not None
    return row


async def make_ready(connection: Connection, *, most: int, due_from: datetime) -> int:
    """Put up to `most` due recipients into their lanes; return how many there were."""
    return affected_rows(await connection.execute(_SQL["make_ready"], most, due_from))


def _columns(lanes: Sequence[tuple[MailLane, datetime]]) -> list[list[object]]:
    rows = [(lane.stream, lane.owner_id, lane.domain, due_from) for lane, due_from in lanes]
    return [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
