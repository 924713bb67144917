"""Memory for the bytes of uploads: only a few mails have theirs in memory at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

# Mails that have the bytes of their uploads in memory at a time; at most one per owner.
MOST_WITH_UPLOADS = 3


@dataclass(slots=True)
class _Room:
    """A mail's owner, and the number of running attempts by destination domain that use its bytes."""

    owner_id: str
    used_by: Counter[str] = field(default_factory=Counter)


class UploadRooms:
    """Gives rooms to mails with uploads: one per owner, and one per domain that is slow or not yet known.

    The last room is reserved for domains that answer quickly, so that silent ones cannot take all rooms.
    A mail keeps its room between attempts, unless another mail needs it.
    """

    def __init__(self, *, is_quick: Callable[[str], bool], left: Callable[[UUID], None]) -> None:
        self._is_quick = is_quick
        self._left = left
        self._rooms: dict[UUID, _Room] = {}

    def has_room(self, mail_id: UUID, *, owner_id: str, domain: str) -> bool:
        """Return whether an attempt at a mail may begin now."""
        others = [room for key, room in self._rooms.items() if key != mail_id and room.used_by]
        if len(others) >= MOST_WITH_UPLOADS or any(room.owner_id == owner_id for room in others):
            return False
        if self._is_quick(domain):
            return True
        doubtful = [room for room in others if not all(map(self._is_quick, room.used_by))]
        return len(doubtful) < MOST_WITH_UPLOADS - 1 and not any(domain in room.used_by for room in doubtful)

    def enter(self, mail_id: UUID, *, owner_id: str, domain: str) -> None:
        """Note that an attempt begins; if no room is free, a mail with no running attempt loses its own."""
        if mail_id not in self._rooms:
            unused = [key for key, room in self._rooms.items() if not room.used_by]
            # Two mails of one owner never have a room each.
            unneeded = [key for key in unused if self._rooms[key].owner_id == owner_id]
            if not unneeded and len(self._rooms) >= MOST_WITH_UPLOADS:
                unneeded = unused[:1]
            for key in unneeded:
                self.leave(key)
            self._rooms[mail_id] = _Room(owner_id)
        self._rooms[mail_id].used_by[domain] += 1

    def rest(self, mail_id: UUID, *, domain: str) -> None:
        """Note that an attempt is over."""
        room = self._rooms.get(mail_id)
        if room is not None:
            room.used_by[domain] -= 1
            room.used_by += Counter()

    def leave(self, mail_id: UUID) -> None:
        """Free the room of a mail."""
        if self._rooms.pop(mail_id, None) is not None:
            self._left(mail_id)
