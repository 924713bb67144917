"""The shares of owners in what is in hand: an owner gets no more of it than it leaves free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache

from chassis.postgres import Row
from contracts.mail import Stream
from emailer.sending.lanes import MailLane
from emailer.writing.rendered import COPIES

# One divided by the part of a room that is reserved for the first recipient or mail of an owner, and by the
# part below which an owner that has some there gets no more: a small claim costs as much as a large one.
_RESERVE = 8
# Lanes whose places are kept.
_MOST_REMEMBERED = 1000

# Counts of recipients by room and owner; the total of a room has an empty owner.
Held = Counter[tuple[str, str]]


@lru_cache(maxsize=_MOST_REMEMBERED)
def places(lane: MailLane) -> tuple[tuple[str, str], ...]:
    """Return the keys under which a recipient in `lane` counts: of all, of its domain and of bulk mail."""
    rooms = ("all", f"@{lane.domain}", "bulk") if lane.stream == "bulk" else ("all", f"@{lane.domain}")
    return tuple((room, owner) for room in rooms for owner in (lane.owner_id, ""))


class RoomShares:
    """Divides the rooms for recipients and for bytes of mails among the owners that have mails ready.

    There are rooms for all recipients, for those of bulk mail (half) and for those of each domain. The last
    eighth of each is reserved for the first recipient of an owner that has none there. For domains that
    answer quickly, an owner may have all of the rest that nobody else wants. For other domains, and of bytes,
    it may have half of the rest when it is alone, a third beside another owner, and so on.
    """

    def __init__(self, size: int, *, held: Held, most_bytes: int, held_bytes: Counter[str]) -> None:
        self._size = size
        self._held = held
        self._most_bytes = most_bytes
        self._held_bytes = held_bytes

    def room(self, stream: Stream) -> int:
        """Return how many recipients of a stream can still be taken."""
        return min(most - self._held[name, ""] for name, most in self._rooms_of(stream))

    def divide(
        self,
        lanes: Collection[MailLane],
        *,
        most_of_domain: Callable[[str], int],
        is_quick: Callable[[str], bool],
    ) -> dict[MailLane, int]:
        """Return how many recipients of each of `lanes`, which are of one stream, may be taken."""
        by_owner: dict[str, list[MailLane]] = {}
        for lane in lanes:
            if self._bytes_of(lane.owner_id, owners=1):
                by_owner.setdefault(lane.owner_id, []).append(lane)
        rivals = Counter(lane.domain for own in by_owner.values() for lane in own)
        divided: dict[MailLane, int] = {}
        for owner_id, own in by_owner.items():
            # For domains that are quick, and for others.
            rooms = [
                min(
                    self._share(name, owner_id, most=most, owners=len(by_owner), is_quick=quick)
                    for name, most in self._rooms_of(own[0].stream)
                )
                for quick in (False, True)
            ]
            # Those with the fewest in hand come first, so that none is left out forever.
            own.sort(key=lambda lane: self._held[f"@{lane.domain}", lane.owner_id])
            for number, lane in enumerate(own):
                quick, most = is_quick(lane.domain), most_of_domain(lane.domain)
                owners = rivals[lane.domain]
                part = min(
                    -(-rooms[quick] // (len(own) - number)),
                    self._share(f"@{lane.domain}", owner_id, most=most, owners=owners, is_quick=quick),
                )
                rooms = [max(0, room - part) for room in rooms]
                divided[lane] = part
        return {lane: part for lane, part in divided.items() if part}

    def bytes_for(self, owners: Collection[str]) -> tuple[int, dict[str, int]]:
        """Return how many bytes of stored mails may be taken, in total and of each of `owners`."""
        free = self._most_bytes - self._held_bytes.total()
        return max(1, free // COPIES), {
            owner: max(1, self._bytes_of(owner, owners=len(owners)) // COPIES) for owner in owners
        }

    def note(self, rows: Iterable[Row]) -> None:
        """Count recipients that were claimed as being in hand."""
        for row in rows:
            self._held.update(places(MailLane(row["stream"], row["owner_id"], row["domain"])))
        # The recipients of a mail share its bytes.
        for row in {row["email_id"]: row for row in rows}.values():
            self._held_bytes[row["owner_id"]] += COPIES * row["size_bytes"]

    def _rooms_of(self, stream: Stream) -> list[tuple[str, int]]:
        everybody = [("all", self._size)]
        return [*everybody, ("bulk", self._size // 2 or 1)] if stream == "bulk" else everybody

    def _share(self, room: str, owner_id: str, *, most: int, owners: int, is_quick: bool) -> int:
        own, held = self._held[room, owner_id], self._held[room, ""]
        return _share(most, own=own, held=held, owners=owners, is_quick=is_quick)

    def _bytes_of(self, owner_id: str, *, owners: int) -> int:
        own, held = self._held_bytes[owner_id], self._held_bytes.total()
        return _share(self._most_bytes, own=own, held=held, owners=owners)


def _share(most: int, *, own: int, held: int, owners: int, is_quick: bool = False) -> int:
    """Return how much of a room one of `owners` may take that has `own` of what is `held` there.

    An owner that has none there may begin while the room is not full, even with a mail larger than its share.
    """
    free = max(0, most - most // _RESERVE - held)
    part = free // owners if is_quick else max(0, free - own) // (owners + 1)
    if own:
        return part if part >= most // (_RESERVE * owners) else 0
    return max(part, int(held < most))
