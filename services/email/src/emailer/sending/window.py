"""The recipients in hand, and the bounds on their number: in all, per domain and per owner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from uuid import UUID

from emailer.sending.attempts import Job
from emailer.sending.lanes import Lane

Key = tuple[UUID, int]

# A mail in hand takes its bytes twice: as it is stored and as it is sent.
COPIES = 2

# Recipients in hand per connection, for a domain with few connections; the others wait in their lane.
_EACH_IN_HAND = 10


class Window:
    """Holds at most `size` recipients, and never gives all the room to one domain, owner or stream.

    Their mails may have `most_bytes` together, those of one owner at most half of that. A quarter is reserved
    for the first mails of owners that have none in hand.
    """

    def __init__(self, size: int, *, most_bytes: int) -> None:
        self.size = size
        self.most_bytes = most_bytes
        self._jobs: dict[Key, Job] = {}
        self._of_domain: Counter[str] = Counter()
        self._of_owner: Counter[str] = Counter()
        self._bulk = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, key: Key) -> bool:
        return key in self._jobs

    def __iter__(self) -> Iterator[Key]:
        return iter(self._jobs)

    @property
    def room(self) -> int:
        """The number of recipients that can still be taken."""
        return self.size - len(self._jobs)

    @property
    def bulk_room(self) -> int:
        """The number of recipients of bulk mail that can still be taken."""
        return min(self.room, self.size // 2 - self._bulk)

    def room_of(self, lane: Lane, *, is_quick: bool, connections: int | None) -> int:
        """Return how many more recipients of a lane may be held: fewer for a slow or a limited domain."""
        part = self.size // (2 if is_quick else 4) or 1
        part = min(part, _EACH_IN_HAND * (connections or part))
        held = self._of_domain[lane.domain]
        room = min(part - held, (self.size // 2 or 1) - self._of_owner[lane.owner_id])
        return 0 if held and room < part // 4 else room

    def bytes_of(self, owner_id: str, held: Counter[str], *, owners: int = 1) -> int:
        """Return how many stored bytes one of `owners` may still take, in addition to the bytes `held`."""
        total = held.total()
        room = min(self.most_bytes // 2 - held[owner_id], (self.most_bytes * 3 // 4 - total) // owners)
        is_first = not held[owner_id] and total < self.most_bytes
        return max(room // COPIES, int(is_first))

    def take(self, job: Job) -> None:
        """Hold a recipient that was claimed."""
        self._jobs[job.key] = job
        self._of_domain[job.domain] += 1
        self._of_owner[job.mail.owner_id] += 1
        self._bulk += job.stream == "bulk"

    def let_go(self, job: Job) -> None:
        """Free the room of a recipient: its outcome is written, or it is left to another process."""
        if self._jobs.get(job.key) is job:
            del self._jobs[job.key]
        for counts, key in ((self._of_domain, job.domain), (self._of_owner, job.mail.owner_id)):
            counts[key] -= 1
            if not counts[key]:
                del counts[key]
        self._bulk -= job.stream == "bulk"
