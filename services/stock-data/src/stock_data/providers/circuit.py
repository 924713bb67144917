"""A provider's circuit breaker: after certain failures the provider is not called for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from chassis.broker.breaker import Breaker
from stock_data.errors import ProviderFailure, UpstreamDown

_LONGEST_S = 60.0
_DOWN_PAUSE_S = 5.0
_PAUSES_S = {"auth": 60.0, "blocked": 60.0, "quota": 60.0}
_NOBODY = ("",)


class Circuit:
    """Opens after a failure for a pause in which the provider is not called.

    An exhausted quota opens it until the provider's own reset (a minute at most), a rejected key or a block
    page for a minute. After `threshold` consecutive outages, calls of their owner are made every five seconds
    only: slow requests of some do not show that the provider is down for others (`chassis.broker.breaker`).
    """

    def __init__(self, *, threshold: int = 3, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._outages = Breaker(threshold=threshold, pause_s=_DOWN_PAUSE_S, clock=clock)
        self._until = 0.0
        # Not the errors themselves, whose tracebacks hold what was at work.
        self._failure: tuple[type[ProviderFailure], str] | None = None
        self._outage = UpstreamDown().detail

    def require_closed(self, owners: Collection[str] = _NOBODY) -> None:
        """Raise the failure that opened the circuit for all of `owners`, as long as it is open."""
        left_s = self._until - self._clock()
        if self._failure is not None and left_s > 0:
            kind, detail = self._failure
            raise kind(detail, retry_after_s=left_s)
        if not any(map(self._outages.allows, owners)):
            raise UpstreamDown(self._outage, retry_after_s=_DOWN_PAUSE_S)

    def succeeded(self) -> None:
        """Close the circuit after an answer."""
        self._outages.succeeded()
        self._failure = None

    def failed(self, error: ProviderFailure, owners: Collection[str] = _NOBODY) -> None:
        """Open the circuit for the pause of this kind of failure of a call of `owners`."""
        if isinstance(error, UpstreamDown):
            self._outage = error.detail
            self._outages.failed(*owners)
            return
        pause_s = _PAUSES_S.get(error.kind, 0.0)
        if error.kind == "quota" and error.retry_after_s is not None:
            pause_s = min(error.retry_after_s, _LONGEST_S)
        if pause_s > 0:
            self._failure, self._until = (type(error), error.detail), self._clock() + pause_s
