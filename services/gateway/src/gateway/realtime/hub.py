"""Channels and who listens to them on this gateway."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Listener = Callable[["Publication"], None]


@dataclass(frozen=True, slots=True)
class Publication:
    """Something published on a channel; `ts` is an RFC 3339 time."""

    channel: str
    offset: int
    ts: str
    data: Any

    def document(self) -> dict[str, Any]:
        """The publication as clients see it."""
        return {"channel": self.channel, "offset": self.offset, "ts": self.ts, "data": self.data}


class Hub:
    """Hands publications to listeners, in the order they are published here."""

    def __init__(self) -> None:
        self._listeners: dict[str, dict[int, Listener]] = defaultdict(dict)
        self._next = 0

    def listen(self, channel: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` for each publication on `channel`; gives what ends it."""
        self._next += 1
        number = self._next
        self._listeners[channel][number] = listener

        def stop() -> None:
            listeners = self._listeners.get(channel)
            if listeners is None:
                return
            listeners.pop(number, None)
            if not listeners:
                del self._listeners[channel]

        return stop

    def has_listeners(self, channel: str) -> bool:
        """Whether anybody here listens to `channel`."""
        return channel in self._listeners

    def publish(self, publication: Publication) -> None:
        """Hand `publication` to everybody who listens to its channel."""
        for listener in list(self._listeners.get(publication.channel, {}).values()):
            listener(publication)

    def counts(self) -> Mapping[str, int]:
        """Number of listeners by channel."""
        return {channel: len(listeners) for channel, listeners in self._listeners.items()}
