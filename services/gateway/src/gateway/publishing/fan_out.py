"""Publications on their way to the many listeners of a channel, in turns of the owners of these."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from chassis import metrics
from chassis.loop_turns import LoopTurns
from gateway.publishing.publications import Publication
from gateway.publishing.signals import FellBehind, Signal

# For the listeners of one owner of a channel. Whoever loses them subscribes again: they can be recovered, and
# what is published until then, too.
MOST_WAITING = 200
# For those of an ordered channel with few listeners, which loses nothing: all alerts of an owner may fire at
# once.
MOST_WAITING_OF_FEW = 1_000
_LISTENERS_OF_A_TURN = 50
_WEIGHT_OF_A_SIGNAL = 4

Hand = Callable[[str, int, Publication | Signal], None]


@dataclass(slots=True)
class _Round:
    """A publication, or the signal that some are missing, with the numbers of the listeners to hand it to."""

    news: Publication | Signal
    numbers: Sequence[int]
    handed: int = 0


@dataclass(slots=True)
class _Crowd:
    """A channel with many listeners: how many owners they have, and what waits for those of each."""

    owners: int = 0
    waiting: dict[str, deque[_Round]] = field(default_factory=dict)


class FanOut:
    """Hands each publication to the listeners of an owner in slices, and owners take turns.

    What is published meanwhile waits behind it, for each owner by itself: the order is kept, and an owner
    with thousands of listeners delays only these. If the channel is ordered and more than `most_waiting`
    wait, its listeners are told that they fell behind, and nothing of what waited is handed to them. Of other
    channels the newest position replaces what waits, in whatever order they are published. `hand` takes the
    channel, the number of a listener and what it is handed.
    """

    def __init__(self, turns: LoopTurns, *, hand: Hand) -> None:
        self._turns = turns
        self._hand = hand
        # Those for which something waits.
        self._crowds: dict[str, _Crowd] = {}

    def is_under_way(self, channel: str) -> bool:
        """Return whether something waits for a listener of `channel`."""
        return channel in self._crowds

    def is_behind(self, channel: str) -> bool:
        """Return whether something waits for the listeners of every owner."""
        crowd = self._crowds.get(channel)
        return crowd is not None and len(crowd.waiting) >= crowd.owners

    def begin(
        self,
        channel: str,
        of_owner: Mapping[str, Sequence[int]],
        publication: Publication,
        *,
        is_ordered: bool,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        """Hand `publication` to the listeners with these numbers, by their owners."""
        crowd = self._crowds.setdefault(channel, _Crowd())
        crowd.owners = len(of_owner)
        idle = [owner for owner in of_owner if owner not in crowd.waiting]
        for owner, numbers in of_owner.items():
            waiting = crowd.waiting.get(owner)
            if waiting is None:
                crowd.waiting[owner] = deque([_Round(publication, numbers)])
            elif not is_ordered:
                _conflate(waiting, publication, numbers)
            else:
                waiting.append(_Round(publication, numbers))
                if len(waiting) > most_waiting:
                    waiting.clear()
                    waiting.append(_Round(FellBehind(channel), numbers))
        for owner in idle:
            self._expect_turn(channel, owner, len(of_owner[owner]))

    def tell(self, of_owner: Mapping[str, Sequence[int]], signal: Signal) -> None:
        """Hand `signal` to the listeners with these numbers, by their owners, before what waits for them."""

        def tell_some(numbers: Sequence[int]) -> None:
            for number in numbers:
                self._hand(signal.channel, number, signal)

        for owner, numbers in of_owner.items():
            for first in range(0, len(numbers), _LISTENERS_OF_A_TURN):
                some = numbers[first : first + _LISTENERS_OF_A_TURN]
                # A listener may end its subscription.
                self._turns.run(owner, partial(tell_some, some), weight=1 + _WEIGHT_OF_A_SIGNAL * len(some))

    def _expect_turn(self, channel: str, owner: str, left: int) -> None:
        # Handing one listener a publication takes about a tenth of the time of a command.
        self._turns.run(
            owner, partial(self._go_on, channel, owner), weight=1 + min(left, _LISTENERS_OF_A_TURN)
        )

    def _go_on(self, channel: str, owner: str) -> None:
        """Hand the next publication to some listeners of an owner."""
        crowd = self._crowds[channel]
        waiting = crowd.waiting[owner]
        first = waiting[0]
        some = first.numbers[first.handed : first.handed + _LISTENERS_OF_A_TURN]
        first.handed += len(some)
        for number in some:
            self._hand(channel, number, first.news)
        if first.handed >= len(first.numbers) and waiting[0] is first:
            waiting.popleft()
        if waiting:
            self._expect_turn(channel, owner, len(waiting[0].numbers) - waiting[0].handed)
            return
        del crowd.waiting[owner]
        if not crowd.waiting:
            del self._crowds[channel]


def _conflate(waiting: deque[_Round], publication: Publication, numbers: Sequence[int]) -> None:
    """Add a publication, in place of the last one if they replace each other: the newer of them stays."""
    last = waiting[-1]
    # What some listeners have got is not taken from the others.
    if last.handed or not isinstance(last.news, Publication) or last.news.replaces != publication.replaces:
        waiting.append(_Round(publication, numbers))
        if len(waiting) > MOST_WAITING:
            # The first may be on its way.
            del waiting[1]
        return
    newer = publication if publication.follows(last.news) else last.news
    waiting[-1] = _Round(newer.after(1 + last.news.skipped), numbers)
    metrics.CONFLATED.inc(len(numbers))
