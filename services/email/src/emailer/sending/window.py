"""The recipients in hand, and the bounds on their number: in all, per domain and per owner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from uuid import UUID

from emailer.sending.attempts import Job
from emailer.sending.shares import Held, RoomShares, places

Key = tuple[UUID, int]

# Recipients in hand per connection, for a domain with few connections; the others wait in their lane.
_EACH_IN_FLIGHT = 10


class Window:
    """Holds at most `size` recipients, and never gives all the room to one domain, owner or stream.

    Their mails may have `most_bytes` together.
    """

    def __init__(self, size: int, *, most_bytes: int) -> None:
        self.size = size
        self.most_bytes = most_bytes
        self._jobs: dict[Key, Job] = {}
        self._held: Held = Counter()

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

    def shares(self, held_bytes: Counter[str]) -> RoomShares:
        """Return the numbers of recipients and bytes that a claim may take, by stream, domain and owner.

        They are what the recipients in hand leave; `held_bytes` are the bytes of their mails by owner.
        """
        return RoomShares(
            self.size, held=self._held.copy(), most_bytes=self.most_bytes, held_bytes=held_bytes.copy()
        )

    def most_of_domain(self, *, is_quick: bool, connections: int | None) -> int:
        """Return how many recipients of a domain may be in hand: fewer of a slow or a limited one."""
        part = self.size // (2 if is_quick else 4) or 1
        return min(part, _EACH_IN_FLIGHT * (connections or part))

    def take(self, job: Job) -> None:
        """Hold a recipient that was claimed."""
        self._jobs[job.key] = job
        self._held.update(places(job.lane))

    def let_go(self, job: Job) -> None:
        """Free the room of a recipient: its outcome is written, or it is left to another process."""
        if self._jobs.get(job.key) is job:
            del self._jobs[job.key]
        for place in places(job.lane):
            self._held[place] -= 1
            if not self._held[place]:
                self._held.pop(place)
