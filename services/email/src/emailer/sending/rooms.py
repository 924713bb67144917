"""The room for the bytes of uploads: a few mails have them in memory at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

# Mails with uploads whose bytes are in memory at a time; an owner has one of them.
MOST_WITH_UPLOADS = 3


@dataclass(slots=True)
class _Room:
    """The mail of an owner, and how many attempts to each destination domain use its bytes now."""

    owner_id: str
    used_by: Counter[str] = field(default_factory=Counter)


class UploadRooms:
    """Gives room to mails with uploads: one to an owner, one to a domain that is slow or not known yet.

    The last room is for domains that answer quickly, so that those that never do cannot hold all. A room is
    kept between two attempts at a mail, unless another mail wants it.
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
        """Note that an attempt begins; a mail that only kept its room leaves it, where there is no other."""
        if mail_id not in self._rooms:
            unused = [key for key, room in self._rooms.items() if not room.used_by]
            # An owner's two mails never have a room each.
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
