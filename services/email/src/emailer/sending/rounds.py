"""The order of lanes, and where each begins, so that no query has to skip rows that have left their lane.

While an old snapshot is held, by a backup for example, the dead rows of all claimed recipients stay in the
index, in front of those that wait. So a process remembers the lanes that have recipients, and where it left
each of them. It remembers its last snapshot, too: recipients that became ready since then have a transaction
id that was not visible in it, wherever they are in the index.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import islice

from chassis.postgres import Connection, Row
from contracts.mail import Stream
from emailer.sending import lane_repository
from emailer.sending.lane_repository import Snapshot
from emailer.sending.lanes import STREAMS, MailLane, Terms

OWNERS = 20
DOMAINS = 10
# A walk through all lanes finds recipients that another process had locked and released.
WALK_EVERY_S = 10.0
MOST_KNOWN = 10_000
MOST_OF_OWNER = 1_000
_MOST_ARRIVALS = 10_000
_MOST_COUNTED = 10_000
EPOCH = datetime.fromtimestamp(0, UTC)


class Round:
    """The round of one stream: owners take turns, and so do the domains of an owner."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        # By owner and domain, the time before which nothing is due; the lanes whose turn was last come last.
        self._known: dict[str, dict[str, datetime]] = {}
        self._count = 0
        # A heap of numbers of lanes with their owners: three lanes are in it as 3, 2 and 1. An owner that had
        # more may still be in it with higher ones.
        self._fullest: list[tuple[int, str]] = []
        # The walk: the owner, and by owner the domain, after which there are more to be found.
        self._owner: str | None = ""
        self._domains: dict[str, str] = {}
        self._has_left_out = False

    def __len__(self) -> int:
        """Return the number of lanes that are known to have recipients."""
        return self._count

    def begin_walk(self) -> None:
        """Begin another walk through all lanes, some at each look, unless a walk is under way."""
        if self._owner is None and not self._domains:
            self._owner, self._has_left_out = "", False

    def learn(self, owner_id: str, domain: str, due_from: datetime) -> None:
        """Note that a lane has recipients, due at `due_from` or later.

        At most a thousand lanes of an owner are known at a time, and ten thousand in all: then an owner gets
        one in place of a lane of the owner that has the most. A walk finds the others later.
        """
        domains = self._known.get(owner_id, {})
        if domain in domains:
            domains[domain] = min(due_from, domains[domain])
            return
        is_full, is_left_out = self._count >= MOST_KNOWN, len(domains) >= MOST_OF_OWNER
        if is_full and not is_left_out:
            while -self._fullest[0][0] > len(fullest := self._known.get(self._fullest[0][1], {})):
                heapq.heappop(self._fullest)
            is_left_out = len(fullest) <= len(domains) + 1
            if not is_left_out:
                fullest.popitem()
                self._count -= 1
        self._has_left_out |= is_full or is_left_out
        if is_left_out:
            return
        self._known.setdefault(owner_id, domains)[domain] = due_from
        self._count += 1
        heapq.heappush(self._fullest, (-len(domains), owner_id))
        if len(self._fullest) > 2 * MOST_KNOWN:
            sizes = {owner: len(domains) for owner, domains in self._known.items()}
            self._fullest = sorted((-n, owner) for owner, size in sizes.items() for n in range(1, size + 1))

    async def walk(self, connection: Connection) -> None:
        """Find the next owners, and the next domains of owners already found, unless all are known."""
        if self._owner is None and not self._domains:
            return
        if self._owner is not None:
            owners = await lane_repository.find_owners(
                connection, self.stream, behind=self._owner, most=OWNERS
            )
            self._domains |= dict.fromkeys(owners, "")
            self._owner = owners[-1] if len(owners) == OWNERS else None
        behind = {owner: self._domains.pop(owner) for owner in tuple(islice(self._domains, OWNERS))}
        counts = dict.fromkeys(behind, 0)
        for lane in await lane_repository.find_lanes(connection, self.stream, behind=behind, most=DOMAINS):
            owner, domain = lane.owner_id, lane.domain
            self.learn(owner, domain, EPOCH)
            counts[owner] += 1
            if counts[owner] == DOMAINS:
                # The owner's other domains follow after those of the other owners.
                self._domains[owner] = domain
        if self._has_left_out:
            self.begin_walk()

    def lanes(self, most: int) -> dict[MailLane, datetime]:
        """Return lanes that are known to have recipients, each with the time before which none is due."""
        found = (
            (MailLane(self.stream, owner, domain), due_from)
            for owner, domains in self._known.items()
            for domain, due_from in domains.items()
        )
        return dict(islice(found, most))

    def next(self, is_closed: Callable[[str], bool] = lambda _: False) -> list[MailLane]:
        """Return the lanes whose turn it is: for up to 20 owners, up to 10 domains that are not closed."""
        turns = (
            (owner, tuple(islice((domain for domain in domains if not is_closed(domain)), DOMAINS)))
            for owner, domains in self._known.items()
        )
        found = []
        for owner, in_turn in tuple(islice((turn for turn in turns if turn[1]), OWNERS)):
            domains = self._known[owner] = self._known.pop(owner)
            for domain in in_turn:
                domains[domain] = domains.pop(domain)
                found.append(MailLane(self.stream, owner, domain))
        return found

    async def claim(
        self, connection: Connection, divided: Mapping[MailLane, int], *, most: int, terms: Terms
    ) -> list[Row]:
        """Claim the recipients that have been ready longest, from each lane as many as `divided` says."""
        due_from = {lane: self._known[lane.owner_id][lane.domain] for lane in divided}
        rows = await lane_repository.claim(connection, divided, due_from=due_from, most=most, terms=terms)
        taken: dict[MailLane, list[datetime]] = {lane: [] for lane in divided}
        sizes: Counter[str] = Counter()
        for row in rows:
            taken[MailLane(self.stream, row["owner_id"], row["domain"])].append(row["was_due_at"])
            sizes[row["owner_id"]] += row["size_bytes"]
        is_cut = len(rows) >= most or sizes.total() >= terms.most_bytes
        is_cut = is_cut or any(sizes[owner] >= most for owner, most in terms.bytes_of.items())
        for lane, due in taken.items():
            if due:
                self._known[lane.owner_id][lane.domain] = max(due)
            if len(due) >= divided[lane] or is_cut:
                continue
            del self._known[lane.owner_id][lane.domain]
            self._count -= 1
            if not self._known[lane.owner_id]:
                del self._known[lane.owner_id]
        return rows


class Rounds:
    """The rounds of all streams, as one process knows them."""

    def __init__(self) -> None:
        # Held during a look and the claim that follows.
        self.lock = asyncio.Lock()
        self.forget()

    def forget(self) -> None:
        """Forget everything, as at the start: what was read last may have been rolled back."""
        self.streams = [Round(stream) for stream in STREAMS]
        self.seen: Snapshot | None = None
        self._walk_at = 0.0

    async def look(self, connection: Connection) -> None:
        """Learn which lanes have got recipients since the last look, and continue the walk.

        There must be no other look between a look and its claim.
        """
        now = time.monotonic()
        rows = await lane_repository.find_arrivals(connection, self.seen, most=_MOST_ARRIVALS)
        self.seen = rows[0]["ends_at"], rows[0]["at_work"]
        if now >= self._walk_at or sum(row["count"] or 0 for row in rows) >= _MOST_ARRIVALS:
            self._walk_at = now + WALK_EVERY_S
            for turn in self.streams:
                turn.begin_walk()
        by_stream = {turn.stream: turn for turn in self.streams}
        for row in rows:
            # Streams that only a newer release knows are left to it.
            if row["owner_id"] and row["stream"] in by_stream:
                by_stream[row["stream"]].learn(row["owner_id"], row["domain"], row["due_from"])
        for turn in self.streams:
            await turn.walk(connection)

    @property
    def has_any(self) -> bool:
        """Whether a lane is known to have recipients, or nothing is known."""
        return self.seen is None or any(len(turn) for turn in self.streams)

    async def measure(
        self, connection: Connection, *, is_limiting: Callable[[str], bool] = lambda _: False
    ) -> tuple[int, dict[Stream, float]]:
        """Return how many recipients are ready, up to 10,000, and each stream's longest wait in seconds.

        The longest wait is taken over 200 lanes, without those of domains for which `is_limiting` is true.
        """
        await self.look(connection)
        known = [lane for turn in self.streams for lane in turn.lanes(_MOST_COUNTED).items()]
        count = await lane_repository.count_ready(connection, known, most=_MOST_COUNTED)
        waits: dict[Stream, float] = {}
        for turn in self.streams:
            lanes_there = turn.lanes(MOST_KNOWN).items()
            first = list(
                islice((found for found in lanes_there if not is_limiting(found[0].domain)), OWNERS * DOMAINS)
            )
            waits[turn.stream] = await lane_repository.longest_wait_s(connection, first)
        return count, waits
