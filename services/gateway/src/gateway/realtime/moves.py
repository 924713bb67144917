"""Joins and leaves: on their way to the subscribers that asked for them, in rounds."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import NamedTuple

from chassis import logging
from gateway.publishing.signals import Moved
from gateway.realtime.commands import MOST_CHANNELS

log = logging.get(__name__)

ROUND_S = 0.25
# In each round.
MOST_OF_OWNER = 10
MOST_IN_ROUND = 200
# Moves are only a hint, and a query returns the current state: of more, the oldest are dropped.
# As many as one connection brings that is replaced by another.
MOST_WAITING_OF_OWNER = 2 * MOST_CHANNELS
MOST_HEARD = 1000
_PUSHES_AT_ONCE = 50

Push = Callable[[bytes], None]


class PendingMove(NamedTuple):
    """A move that waits for its round, and the number of the newest subscriber at its time."""

    move: Moved
    newest: int


class Moves:
    """The joins and leaves of connections, and the subscribers that asked for them.

    Each round pushes those of this gateway, in which owners take turns, and those that other gateways have
    sent. So the connections of one owner that come and go, however many, neither flood a room nor delay the
    moves of others. Of a connection that joins and leaves while it waits only the newest move is pushed: a
    subscriber that came in between knows the state before it.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, dict[tuple[str, str], PendingMove]] = {}
        self._heard: deque[PendingMove] = deque(maxlen=MOST_HEARD)
        # The subscribers of each channel, by their numbers.
        self._pushes: dict[str, dict[int, Push]] = {}
        self._newest = 0
        self.are_due = asyncio.Event()

    def listen(self, channel: str, push: Push) -> Callable[[], None]:
        """Call `push` with the frames of moves on `channel`; return the function that ends this."""
        self._newest += 1
        number = self._newest
        self._pushes.setdefault(channel, {})[number] = push

        def stop() -> None:
            pushes = self._pushes.get(channel, {})
            pushes.pop(number, None)
            if not pushes:
                self._pushes.pop(channel, None)

        return stop

    def add(self, move: Moved) -> None:
        """Add a join or leave of a connection here."""
        waiting = self._waiting.setdefault(move.user, {})
        waiting.pop((move.channel, move.client), None)
        if not waiting:
            # Behind the moves of others before it, such as the join of whoever hears this one.
            self._waiting[move.user] = self._waiting.pop(move.user)
        waiting[move.channel, move.client] = PendingMove(move, self._newest)
        if len(waiting) > MOST_WAITING_OF_OWNER:
            del waiting[next(iter(waiting))]
        self.are_due.set()

    def hear(self, moves: Iterable[Moved]) -> None:
        """Add joins and leaves at another gateway."""
        self._heard.extend(PendingMove(move, self._newest) for move in moves)
        self.are_due.set()

    def take(self) -> tuple[list[PendingMove], list[PendingMove]]:
        """Return the moves of a round: those here, and those at other gateways."""
        here: list[PendingMove] = []
        for owner in list(self._waiting):
            if len(here) >= MOST_IN_ROUND:
                break
            waiting = self._waiting.pop(owner)
            here += [waiting.pop(key) for key in list(islice(waiting, MOST_OF_OWNER))]
            if waiting:
                # Behind the other owners.
                self._waiting[owner] = waiting
        elsewhere = list(self._heard)
        self._heard.clear()
        if not self._waiting:
            self.are_due.clear()
        return here, elsewhere

    async def push(self, moves: Iterable[PendingMove]) -> None:
        """Push `moves` to the subscribers of their time, in slices, so that other work goes on.

        A subscriber gets those of its channel as one piece, which is made once for all that were there.
        """
        of_channel: dict[str, list[PendingMove]] = defaultdict(list)
        for one in moves:
            of_channel[one.move.channel].append(one)
        count = 0
        for channel, moved in of_channel.items():
            pushes = self._pushes.get(channel, {})
            frames = [one.move.frame() for one in moved] if pushes else []
            whole, oldest = b"".join(frames), min(one.newest for one in moved)
            for number in tuple(pushes):
                count += 1
                if not count % _PUSHES_AT_ONCE:
                    await asyncio.sleep(0)
                piece = whole
                if number > oldest:
                    seen = zip(frames, moved, strict=True)
                    piece = b"".join(frame for frame, one in seen if one.newest >= number)
                # It may have ended while others were served.
                push = pushes.get(number)
                if push is None or not piece:
                    continue
                try:
                    push(piece)
                except Exception as error:  # of one subscriber: the others have the same right to it
                    log.error("joins and leaves could not be pushed", channel=channel, exc_info=error)
