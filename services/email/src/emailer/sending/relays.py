"""The relays of a route in order of preference, and those that are skipped for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from chassis import logging, metrics
from emailer.sending.smtp import SmtpRelay

log = logging.get(__name__)

_LONGEST_PAUSE = 30


class Relays:
    """The relays that mails can be handed to; tracks which of them failed, and until when they are skipped.

    A skipped relay is tried last, not never. When its time is over, one connection tries it, while the others
    go on without it.
    """

    def __init__(
        self, relays: Sequence[SmtpRelay], *, pause_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not relays:
            raise ValueError("a route needs at least one relay")
        self.all = tuple(relays)
        self._pause_s = pause_s
        self._clock = clock
        self._failures: dict[SmtpRelay, int] = {}
        self._until: dict[SmtpRelay, float] = {}
        self._tried: set[SmtpRelay] = set()
        self._show()

    @property
    def are_all_away(self) -> bool:
        """Whether each relay has failed, and none has accepted a connection since."""
        return len(self._failures) == len(self.all)

    def is_last(self, relay: SmtpRelay) -> bool:
        """Return whether each relay other than `relay` has failed."""
        return len(self._failures.keys() | {relay}) == len(self.all)

    def is_away(self, relay: SmtpRelay) -> bool:
        """Return whether `relay` is skipped now."""
        # First the usual case: the hash of a relay is that of all its settings.
        return bool(self._until) and self._until.get(relay, 0) > self._clock()

    def in_order(self) -> list[SmtpRelay]:
        """Return all relays, those that are skipped at the end."""
        now = self._clock()
        away = {relay for relay, until in self._until.items() if until > now}
        for relay in self._until.keys() - away:
            # The present caller tries it; others do not wait for the same silent relay.
            self._until[relay] = now + self._wait_s(relay)
            self._tried.add(relay)
        return sorted(self.all, key=lambda relay: relay in away)

    def set_aside(self, relay: SmtpRelay, reason: str, *, least_s: float = 0) -> None:
        """Skip `relay` for a while, longer each time, at least for `least_s` seconds.

        Many failures at the same time count once.
        """
        now = self._clock()
        if self._until.get(relay, 0) > now and relay not in self._tried:
            return
        self._tried.discard(relay)
        wait_s = max(least_s, self._wait_s(relay))
        self._until[relay] = now + wait_s
        self._failures[relay] = self._failures.get(relay, 0) + 1
        self._show()
        if len(self.all) > 1:
            log.warning("relay passed over", relay=relay.name, reason=reason, seconds=wait_s)

    def note_open(self, relay: SmtpRelay) -> None:
        """Note that `relay` has accepted a connection."""
        if self._failures.pop(relay, 0):
            del self._until[relay]
            self._tried.discard(relay)
            self._show()
            if len(self.all) > 1:
                log.info("relay in use again", relay=relay.name)

    def _wait_s(self, relay: SmtpRelay) -> float:
        return self._pause_s * min(2.0 ** self._failures.get(relay, 0), _LONGEST_PAUSE)

    def _show(self) -> None:
        # With only one relay, the metric of the paused route shows the same.
        metrics.EMAIL_RELAYS_AWAY.set(len(self._failures) if len(self.all) > 1 else 0)
