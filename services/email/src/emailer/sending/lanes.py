"""Claims in turn: what is ready stands in lanes by stream, owner and domain, and each gets its share.

A claim costs as many probes of the index as it takes lanes, however many mails stand in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args
from uuid import UUID

from chassis import queries
from chassis.postgres import Connection
from contracts.mail import Stream

SQL = queries.load("emailer")
STREAMS: tuple[Stream, ...] = get_args(Stream)

_OWNERS = 20
_DOMAINS = 10
_MOST_REMEMBERED = 10_000
_MOST_COUNTED = 10_000


@dataclass(slots=True)
class Round:
    """Where the round of one stream stands: behind which owner, and for each owner behind which domain."""

    stream: Stream
    owner: str = ""
    domains: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lane:
    """What one owner sends to one domain in one stream."""

    stream: Stream
    owner_id: str
    domain: str


@dataclass(frozen=True, slots=True)
class Terms:
    """Who claims, for how long, and how many bytes of mails at most."""

    holder: UUID
    lease_s: float
    most_bytes: int


async def look(connection: Connection) -> tuple[float, bool]:
    """Return in how many seconds one outside the lanes is due next, and whether there is one in a lane."""
    row = await connection.fetchrow(SQL["look"])
    assert row is not None
    return math.inf if row["due_in_s"] is None else row["due_in_s"], row["has_ready"]


async def make_ready(connection: Connection, *, most: int) -> int:
    """Put into their lanes what has become due; return how many."""
    return int((await connection.execute(SQL["make_ready"], most)).split()[-1])


async def next_lanes(connection: Connection, turn: Round) -> list[Lane]:
    """Return the next lanes of a round with something in them, and move the round on."""
    rows = await connection.fetch(SQL["find_owners"], turn.stream, turn.owner, _OWNERS)
    owners = [row["owner_id"] for row in rows]
    if len(owners) < _OWNERS and turn.owner:
        rows = await connection.fetch(SQL["find_owners"], turn.stream, "", _OWNERS - len(owners))
        owners += [row["owner_id"] for row in rows if row["owner_id"] not in owners]
    turn.owner = owners[-1] if len(owners) == _OWNERS else ""
    if not owners:
        return []
    found: dict[str, list[str]] = {owner: [] for owner in owners}
    behind = [turn.domains.get(owner, "") for owner in owners]
    for row in await connection.fetch(SQL["find_lanes"], turn.stream, owners, behind, _DOMAINS):
        found[row["owner_id"]].append(row["domain"])
    # Those whose round comes to its end begin it again.
    short = [owner for owner in owners if len(found[owner]) < _DOMAINS and owner in turn.domains]
    if short:
        for row in await connection.fetch(SQL["find_lanes"], turn.stream, short, [""] * len(short), _DOMAINS):
            domains = found[row["owner_id"]]
            if len(domains) < _DOMAINS and row["domain"] not in domains:
                domains.append(row["domain"])
    for owner, domains in found.items():
        turn.domains.pop(owner, None)
        if len(domains) == _DOMAINS:
            turn.domains[owner] = domains[-1]
    while len(turn.domains) > _MOST_REMEMBERED:
        del turn.domains[next(iter(turn.domains))]
    return [Lane(turn.stream, owner, domain) for owner in owners for domain in found[owner]]


def shares(lanes: Sequence[Lane], *, most: int, allowed: Callable[[Lane], int]) -> list[tuple[Lane, int]]:
    """Divide `most` among the owners of `lanes`, and what an owner gets among their lanes, as `allowed`."""
    by_owner: dict[str, list[tuple[Lane, int]]] = {}
    for lane in lanes:
        if (limit := allowed(lane)) > 0:
            by_owner.setdefault(lane.owner_id, []).append((lane, limit))
    divided = []
    for own in by_owner.values():
        part = -(-most // (len(by_owner) * len(own)))
        divided += [(lane, min(part, limit)) for lane, limit in own]
    return divided


async def claim(
    connection: Connection, divided: Sequence[tuple[Lane, int]], *, most: int, terms: Terms
) -> list[Any]:
    """Take what has been ready longest in each lane, as many as its share; `was` is the status a row had."""
    return await connection.fetch(
        SQL["claim_lanes"],
        [lane.stream for lane, _ in divided],
        [lane.owner_id for lane, _ in divided],
        [lane.domain for lane, _ in divided],
        [share for _, share in divided],
        most,
        terms.holder,
        terms.lease_s,
        terms.most_bytes,
    )


async def measure(connection: Connection) -> tuple[int, dict[Stream, float]]:
    """Return how many recipients are ready, counted up to 10,000, and each stream's longest wait in seconds.

    The longest wait is that of the first 200 lanes.
    """
    count: int = await connection.fetchval(SQL["measure_ready"], _MOST_COUNTED)
    waits: dict[Stream, float] = {}
    for stream in STREAMS:
        lanes = await next_lanes(connection, Round(stream))
        columns = [[getattr(lane, name) for lane in lanes] for name in ("stream", "owner_id", "domain")]
        waits[stream] = await connection.fetchval(SQL["oldest_of_lanes"], *columns)
    return count, waits
