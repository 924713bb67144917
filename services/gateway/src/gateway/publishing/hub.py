"""Channels and their listeners on this gateway."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from chassis import logging, metrics, shares
from chassis.errors import Overloaded, TooManyAtOnce
from chassis.loop_turns import LoopTurns
from gateway.publishing.fan_out import MOST_WAITING, MOST_WAITING_OF_FEW, FanOut
from gateway.publishing.publications import Publication
from gateway.publishing.signals import FellBehind, Signal

log = logging.get(__name__)

MOST_SUBSCRIPTIONS = 50_000
# The memory of each, of a channel that nobody else listens to.
SUBSCRIPTION_BYTES = 3 * 1024
# Channels of one connection: an owner with fewer may take of the last places.
FEW_SUBSCRIPTIONS = 200
_RETRY_AFTER_S = 5.0
# A channel with more listeners serves them in turns of their owners.
FEW_LISTENERS = 50

PublicationListener = Callable[[Publication], None]
SignalListener = Callable[[Signal], None]


class _Listening(NamedTuple):
    """One listener of a channel."""

    owner: str
    listener: PublicationListener
    on_signal: SignalListener | None


class Hub:
    """Hands publications to listeners, in the order in which they are published here.

    A listener that fails is logged, and keeps nothing from the others. Those of owners are subscriptions:
    there are at most `most_subscriptions`, and an owner has no more than it leaves free. The many listeners
    of a channel, or of many channels, are served in `turns` of their owners: those of one owner delay nobody
    else.
    """

    def __init__(
        self, *, most_subscriptions: int = MOST_SUBSCRIPTIONS, turns: LoopTurns | None = None
    ) -> None:
        self._most = most_subscriptions
        self._listeners: dict[str, dict[int, _Listening]] = {}
        self.turns = turns or LoopTurns()
        self._fan_out = FanOut(self.turns, hand=self._hand)
        self._next = 0
        self._held = 0
        self._of_owner: Counter[str] = Counter()

    def listen(
        self,
        channel: str,
        listener: PublicationListener,
        *,
        owner: str = "",
        on_signal: SignalListener | None = None,
    ) -> Callable[[], None]:
        """Call `listener` for each publication on `channel`; return the function that ends this.

        `on_signal` is called for other events of the channel. Raise `TooManyAtOnce` if `owner` has its share
        of the subscriptions, whether or not others are free, and `Overloaded` if all are taken and it has
        few; without an owner it is the service itself that listens.
        """
        own = self._of_owner[owner]
        if owner and not shares.has_room(own, held=self._held, most=self._most, few=FEW_SUBSCRIPTIONS):
            metrics.SUBSCRIPTIONS_REFUSED.inc()
            refusal = TooManyAtOnce if own >= FEW_SUBSCRIPTIONS else Overloaded
            raise refusal(
                f"This gateway has {self._held} of {self._most} subscriptions, {own} of them yours: "
                "end some, or try again later.",
                retry_after_s=_RETRY_AFTER_S,
            )
        if owner:
            self._count(owner, 1)
        self._next += 1
        number = self._next
        self._listeners.setdefault(channel, {})[number] = _Listening(owner, listener, on_signal)

        def stop() -> None:
            listeners = self._listeners.get(channel, {})
            if listeners.pop(number, None) is None:
                return
            if owner:
                self._count(owner, -1)
            if not listeners:
                del self._listeners[channel]

        return stop

    def _count(self, owner: str, by: int) -> None:
        self._held += by
        metrics.SUBSCRIPTIONS.inc(by)
        self._of_owner[owner] += by
        if not self._of_owner[owner]:
            del self._of_owner[owner]

    def has_listeners(self, channel: str) -> bool:
        """Return whether `channel` has listeners here."""
        return channel in self._listeners

    def channels(self, prefix: str) -> Iterator[str]:
        """Return the channels with `prefix` that have listeners here."""
        return (channel for channel in list(self._listeners) if channel.startswith(prefix))

    def is_under_way(self, channel: str) -> bool:
        """Return whether something that was published on `channel` waits for a listener."""
        return self._fan_out.is_under_way(channel)

    def is_behind(self, channel: str) -> bool:
        """Return whether no owner has been handed all that was published on `channel`."""
        return self._fan_out.is_behind(channel)

    def publish(
        self, publication: Publication, *, topic: str | None = None, is_ordered: bool = False
    ) -> None:
        """Hand `publication` to every listener of its channel, or of `topic` if channels share a name.

        If the channel `is_ordered`, listeners that cannot be handed all are told that they `FellBehind`;
        otherwise newer publications replace those that wait.
        """
        channel = topic or publication.channel
        listeners = self._listeners.get(channel)
        if not listeners:
            return
        kind = publication.channel.partition(":")[0]
        metrics.PUBLICATIONS.labels(kind).inc(len(listeners))
        is_small = len(listeners) <= FEW_LISTENERS
        # Very many quotes, or messages of very many rooms, may come at once.
        if is_small and not self.is_under_way(channel) and self.turns.take_now(len(listeners)):
            for number in tuple(listeners):
                self._hand(channel, number, publication)
            return
        of_owner: dict[str, list[int]] = {}
        for number, listening in listeners.items():
            of_owner.setdefault(listening.owner, []).append(number)
        most = MOST_WAITING_OF_FEW if is_small and is_ordered else MOST_WAITING
        self._fan_out.begin(channel, of_owner, publication, is_ordered=is_ordered, most_waiting=most)

    def signal(self, signal: Signal) -> None:
        """Hand `signal` to the listeners of its channel that accept signals and whom it concerns."""
        of_owner: dict[str, list[int]] = {}
        for number, listening in self._listeners.get(signal.channel, {}).items():
            is_concerned = isinstance(signal, FellBehind) or listening.owner in signal.users
            if is_concerned and listening.on_signal is not None:
                of_owner.setdefault(listening.owner, []).append(number)
        self._fan_out.tell(of_owner, signal)

    def _hand(self, channel: str, number: int, news: Publication | Signal) -> None:
        # It may have stopped while others were served.
        listening = self._listeners.get(channel, {}).get(number)
        if listening is None:
            return
        try:
            if isinstance(news, Publication):
                listening.listener(news)
            elif listening.on_signal is not None:
                listening.on_signal(news)
        except Exception as error:  # of one listener: the others have the same right to it
            log.error("listener failed", channel=channel, exc_info=error)

    def signalled(self, channel: str) -> set[str]:
        """Return the owners of the listeners of `channel` here that accept signals."""
        listeners = self._listeners.get(channel, {}).values()
        return {one.owner for one in listeners if one.owner and one.on_signal is not None}

    def counts(self) -> Mapping[str, int]:
        """Return the number of listeners by channel."""
        return {channel: len(listeners) for channel, listeners in self._listeners.items()}
