"""The room for messages that wait in an outbox, and the shares of owners in it."""

from __future__ import annotations

from collections import Counter

from chassis import shares
from chassis.errors import Overloaded, TooManyAtOnce

MOST_WAITING = 100_000
_RETRY_AFTER_S = 10


class OutboxRoom:
    """Room for `most` messages. Whoever comes first fills the first half; owners share the second.

    Counted is what each owner adds through this process from then on, until the first half has room again.
    That costs the database nothing, and no owner keeps others from being accepted while the broker is away.
    """

    def __init__(self, most: int = MOST_WAITING) -> None:
        self.most = most
        self._half = most // 2
        self._depth = 0
        # Since the last measurement, and by owner since the first half was full.
        self._added = 0
        self._added_by: Counter[str] = Counter()

    def note_depth(self, depth: int) -> None:
        """Take over how many messages wait now."""
        self._depth, self._added = depth, 0
        if depth < self._half:
            self._added_by.clear()

    def take(self, messages: int) -> None:
        """Count `messages` that the owner in `shares.current` is about to add.

        Raise `Overloaded` while the outbox is full, `TooManyAtOnce` when the owner has its share.
        """
        if self._depth + self._added >= self.most:
            raise Overloaded(
                "Too much accepted work is waiting for the message broker; try again later.",
                retry_after_s=_RETRY_AFTER_S,
            )
        owner_id, held = shares.current.get(), self._depth + self._added - self._half
        if held < 0 or not owner_id:
            return
        if not shares.has_room(self._added_by[owner_id], held=held, most=self.most - self._half):
            raise TooManyAtOnce(
                "Too much of your accepted work is waiting for the message broker, and the other places are"
                " for other owners; try again later.",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._added += messages
        self._added_by[owner_id] += messages
