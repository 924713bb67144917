"""Positions in a channel, and the rule by which held and new publications reach a subscriber."""

from __future__ import annotations

from collections import deque
from typing import Generic, NamedTuple, Protocol, TypeVar

from contracts.stocks import is_later

_MOST_LEFT = 8


class ChannelPosition(NamedTuple):
    """A place in a channel: offsets count within an epoch; a new epoch starts them again."""

    epoch: str
    offset: int


class Positioned(Protocol):
    """Anything with a position."""

    @property
    def position(self) -> ChannelPosition:
        """The position in its channel."""


P = TypeVar("P", bound=Positioned)


class HandoverOverflow(Exception):
    """More was published while the state was read than the buffer can hold."""


class Progression:
    """The newest position seen so far; it only moves forward.

    Numbered epochs are ordered by their numbers. Of other epochs, the current one is the newest, and one that
    was left never returns.
    """

    __slots__ = ("_left", "at")

    def __init__(self, at: ChannelPosition) -> None:
        self.at = at
        self._left: tuple[str, ...] = ()

    def advance(self, position: ChannelPosition) -> bool:
        """Move to `position` and return True if it is newer than all positions seen so far."""
        if position.epoch in self._left:
            return False
        if not is_later(*position, than_epoch=self.at.epoch, than_offset=self.at.offset):
            return False
        if position.epoch != self.at.epoch:
            self.leave(self.at.epoch)
        self.at = position
        return True

    def leave(self, epoch: str) -> None:
        """Refuse `epoch` from now on."""
        self._left = (*self._left, epoch)[-_MOST_LEFT:]


class Handover(Generic[P]):
    """Passes the publications of one channel to one subscriber: each position exactly once, in order.

    The source publishes along one sequence of positions, and the initial state of a subscriber has a position
    of that sequence. Listening starts before the state is read, and publications are held until `begin`,
    which returns those after the position of the state: they are sent before any later publication.
    """

    __slots__ = ("_has_lost", "_held", "_is_ordered", "_most_held", "_progression")

    def __init__(self, *, is_ordered: bool, most_held: int = 1000) -> None:
        self._is_ordered = is_ordered
        self._most_held = most_held
        self._has_lost = False
        self._held: deque[P] | None = deque()
        self._progression: Progression | None = None

    @property
    def position(self) -> ChannelPosition | None:
        """The position up to which the subscriber has received everything; None before `begin`."""
        return self._progression.at if self._progression else None

    def offer(self, publication: P) -> bool:
        """Return whether to send `publication` now; before `begin` it is held."""
        if self._progression is not None:
            return self._progression.advance(publication.position)
        assert self._held is not None
        self._held.append(publication)
        if len(self._held) > self._most_held:
            # The newest value replaces the older ones; where all count, none of them can be sent any more.
            self._held.popleft()
            self._has_lost = self._is_ordered
        return False

    def lose(self) -> None:
        """Note before `begin` that publications will not be offered."""
        self._has_lost = True

    def renew(self, state: P) -> bool:
        """Return whether to send a state of now, also at the position that the subscriber has.

        Older publications do not follow it. One with the offset 0 has no place among the publications, and
        may be newer than all of them. Before `begin` it is held like a publication.
        """
        if self.offer(state):
            return True
        return self.position is not None and (state.position == self.position or not state.position.offset)

    def begin(self, position: ChannelPosition) -> list[P]:
        """Begin after `position`; return the held publications that follow it. Raise `HandoverOverflow`."""
        assert self._held is not None
        held, self._held = list(self._held), None
        if self._has_lost:
            raise HandoverOverflow
        self._progression = Progression(position)
        same = [index for index, one in enumerate(held) if one.position.epoch == position.epoch]
        if same:
            # Publications from before the state's epoch are older than the state.
            for older in held[: same[0]]:
                self._progression.leave(older.position.epoch)
            held = held[same[0] :]
        return [one for one in held if self._progression.advance(one.position)]
