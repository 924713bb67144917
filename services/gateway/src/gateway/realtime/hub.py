"""Channels and their listeners on this gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from chassis import metrics
from gateway.realtime.publications import Publication

Listener = Callable[[Publication], None]


class Hub:
    """Hands publications to listeners, in the order in which they are published here."""

    def __init__(self) -> None:
        self._listeners: dict[str, dict[int, Listener]] = {}
        self._next = 0

    def listen(self, channel: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` for each publication on `channel`; return the function that ends it."""
        self._next += 1
        number = self._next
        self._listeners.setdefault(channel, {})[number] = listener

        def stop() -> None:
            listeners = self._listeners.get(channel)
            if listeners is None:
                return
            listeners.pop(number, None)
            if not listeners:
                del self._listeners[channel]

        return stop

    def has_listeners(self, channel: str) -> bool:
        """Return whether anybody here listens to `channel`."""
        return channel in self._listeners

    def channels(self, prefix: str) -> Iterator[str]:
        """Return the channels with `prefix` that have listeners here."""
        return (channel for channel in list(self._listeners) if channel.startswith(prefix))

    def publish(self, publication: Publication) -> None:
        """Hand `publication` to every listener of its channel."""
        listeners = self._listeners.get(publication.channel)
        if listeners:
            kind = publication.channel.partition(":")[0]
            metrics.PUBLICATIONS.labels(kind).inc(len(listeners))
            for listener in tuple(listeners.values()):
                listener(publication)

    def counts(self) -> Mapping[str, int]:
        """Return the number of listeners by channel."""
        return {channel: len(listeners) for channel, listeners in self._listeners.items()}
