"""The channels `bars:<symbol>`: pushed bars of the current minute, with the current state of the feed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contracts.stocks import is_later
from gateway.publishing.hub import Hub
from gateway.publishing.positions import ChannelPosition
from gateway.publishing.publications import Publication
from gateway.realtime.silence import Silence

_PREFIX = "bars:"
_MOST_SYMBOLS = 20_000


class BarFeed:
    """Keeps the newest bar of each symbol, publishes each that is newer, and reports when the feed is silent.

    `data.state` of a bar is `live`, `stale` (no bar has arrived for `silent_after_s`, while the market is
    open) or `restarted` (the first bar of a new epoch). Bars of one minute replace each other while they
    wait; the last one of a minute is not replaced by the next minute.
    """

    def __init__(self, hub: Hub, *, silent_after_s: float) -> None:
        self._hub = hub
        self._bars: dict[str, Mapping[str, Any]] = {}
        self.silence = Silence(hub, prefix=_PREFIX, after_s=silent_after_s, state=self._state)

    def push(self, bars: Sequence[Mapping[str, Any]]) -> None:
        """Handle bars from the feed; a bar older than the stored one is ignored."""
        for bar in bars:
            symbol, at = bar["symbol"], ChannelPosition(bar["stream"]["epoch"], bar["stream"]["offset"])
            known = self._bars.get(symbol)
            if known is None:
                is_taken, state = len(self._bars) < _MOST_SYMBOLS, "live"
            else:
                last = known["stream"]
                is_taken = is_later(*at, than_epoch=last["epoch"], than_offset=last["offset"])
                state = "live" if last["epoch"] == at.epoch else "restarted"
            if not is_taken:
                continue
            self._bars[symbol] = bar
            self.silence.end()
            if self._hub.has_listeners(_PREFIX + symbol):
                self._hub.publish(_publication(bar, state))

    def now(self, symbol: str) -> Publication | None:
        """Return the newest bar of `symbol` with its current state; None if none was pushed."""
        bar = self._bars.get(symbol)
        return None if bar is None else self._current(bar)

    def refreshed(self, publication: Publication) -> Publication:
        """Return a publication that has waited, with its current state."""
        if publication.data["state"] != "live" or not self.silence.lasts():
            return publication
        return self._current(publication.data)

    def _state(self, symbol: str) -> Publication | None:
        bar = self._bars.get(symbol)
        return None if bar is None else self._current(bar, is_state=True)

    def _current(self, bar: Mapping[str, Any], *, is_state: bool = False) -> Publication:
        is_stale = self.silence.lasts() and bar.get("session") != "closed"
        return _publication(bar, "stale" if is_stale else "live", is_state=is_state)


def _publication(bar: Mapping[str, Any], state: str, *, is_state: bool = False) -> Publication:
    position = ChannelPosition(bar["stream"]["epoch"], bar["stream"]["offset"])
    return Publication(
        _PREFIX + bar["symbol"], position, {**bar, "state": state}, is_state=is_state, replaces=bar["t"]
    )
