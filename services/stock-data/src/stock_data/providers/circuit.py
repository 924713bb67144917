"""A provider's circuit breaker: after certain failures the provider is not called for a while."""

from __future__ import annotations

import time
from collections.abc import Callable

from stock_data.errors import ProviderFailure, UpstreamDown

_LONGEST_S = 60.0
_DOWN_PAUSE_S = 5.0
_PAUSES_S = {"auth": 60.0, "blocked": 60.0, "quota": 60.0}


class Circuit:
    """Opens after a failure for a pause in which the provider is not called.

    An exhausted quota opens it until the provider's own reset (a minute at most), a rejected key or a block
    page for a minute, and `threshold` consecutive outages for five seconds.
    """

    def __init__(self, *, threshold: int = 3, clock: Callable[[], float] = time.monotonic) -> None:
        self._threshold = threshold
        self._clock = clock
        self._downs = 0
        self._until = 0.0
        self._error: ProviderFailure | None = None

    def require_closed(self) -> None:
        """Raise the failure that opened the circuit, as long as the circuit is open."""
        left_s = self._until - self._clock()
        if self._error is not None and left_s > 0:
            raise type(self._error)(self._error.detail, retry_after_s=left_s)

    def succeeded(self) -> None:
        """Close the circuit after an answer."""
        self._downs = 0
        self._error = None

    def failed(self, error: ProviderFailure) -> None:
        """Open the circuit for the pause of this kind of failure."""
        pause_s = _PAUSES_S.get(error.kind, 0.0)
        if error.kind == "quota" and error.retry_after_s is not None:
            pause_s = min(error.retry_after_s, _LONGEST_S)
        if isinstance(error, UpstreamDown):
            self._downs += 1
            pause_s = _DOWN_PAUSE_S if self._downs >= self._threshold else 0.0
        if pause_s > 0:
            self._error, self._until = error, self._clock() + pause_s
