"""Channels and their listeners on this gateway."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from chassis import logging, metrics, shares
from chassis.errors import Overloaded
from gateway.publishing.publications import Publication
from gateway.publishing.signals import MembersLeft

log = logging.get(__name__)

MOST_SUBSCRIPTIONS = 50_000
# Channels of one connection: an owner with fewer may take of the last places.
FEW_SUBSCRIPTIONS = 200
_RETRY_AFTER_S = 5.0

Listener = Callable[[Publication], None]
SignalListener = Callable[[MembersLeft], None]


class Hub:
    """Hands publications to listeners, in the order in which they are published here.

    A listener that fails is logged, and keeps nothing from the others. Those of owners are subscriptions:
    there are at most `most_subscriptions`, and an owner has no more than it leaves free.
    """

    def __init__(self, *, most_subscriptions: int = MOST_SUBSCRIPTIONS) -> None:
        self._most = most_subscriptions
        self._listeners: dict[str, dict[int, Listener]] = {}
        self._signal_listeners: dict[str, dict[int, tuple[str, SignalListener]]] = {}
        self._next = 0
        self._held = 0
        self._of_owner: Counter[str] = Counter()

    def listen(
        self,
        channel: str,
        listener: Listener,
        *,
        owner: str = "",
        on_signal: SignalListener | None = None,
    ) -> Callable[[], None]:
        """Call `listener` for each publication on `channel`; return the function that ends this.

        `on_signal` is called for other events of the channel. Raise `Overloaded` if `owner` may have no more
        subscriptions; without an owner it is the service itself that listens.
        """
        own = self._of_owner[owner]
        if owner and not shares.has_room(own, held=self._held, most=self._most, few=FEW_SUBSCRIPTIONS):
            metrics.SUBSCRIPTIONS_REFUSED.inc()
            raise Overloaded(
                f"This gateway has {self._held} of {self._most} subscriptions, {own} of them yours: "
                "end some, or try again later.",
                retry_after_s=_RETRY_AFTER_S,
            )
        if owner:
            self._count(owner, 1)
        self._next += 1
        number = self._next
        self._listeners.setdefault(channel, {})[number] = listener
        if on_signal is not None:
            self._signal_listeners.setdefault(channel, {})[number] = (owner, on_signal)

        def stop() -> None:
            if owner and number in self._listeners.get(channel, {}):
                self._count(owner, -1)
            kept: dict[str, dict[int, Any]]
            for kept in (self._listeners, self._signal_listeners):
                listeners = kept.get(channel, {})
                listeners.pop(number, None)
                if not listeners:
                    kept.pop(channel, None)

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

    def publish(self, publication: Publication, *, topic: str | None = None) -> None:
        """Hand `publication` to every listener of its channel, or of `topic` if channels share a name."""
        listeners = self._listeners.get(topic or publication.channel)
        if listeners:
            kind = publication.channel.partition(":")[0]
            metrics.PUBLICATIONS.labels(kind).inc(len(listeners))
            for listener in tuple(listeners.values()):
                try:
                    listener(publication)
                except Exception as error:  # of one listener: the others have the same right to it
                    log.error("listener failed", channel=publication.channel, exc_info=error)

    def signal(self, signal: MembersLeft) -> None:
        """Hand `signal` to every listener of its channel that accepts signals."""
        for _, listener in tuple(self._signal_listeners.get(signal.channel, {}).values()):
            try:
                listener(signal)
            except Exception as error:  # as above
                log.error("listener failed", channel=signal.channel, exc_info=error)

    def signalled(self, channel: str) -> set[str]:
        """Return the owners of the listeners of `channel` here that accept signals."""
        return {owner for owner, _ in self._signal_listeners.get(channel, {}).values() if owner}

    def counts(self) -> Mapping[str, int]:
        """Return the number of listeners by channel."""
        return {channel: len(listeners) for channel, listeners in self._listeners.items()}
