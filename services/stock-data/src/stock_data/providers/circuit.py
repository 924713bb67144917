"""A provider's circuit: after certain failures it is left alone for a while instead of asked in vain."""

from __future__ import annotations

import time
from collections.abc import Callable

from stock_data.errors import ProviderFailure, UpstreamDown

_LONGEST_S = 60.0
_DOWN_PAUSE_S = 5.0
_PAUSES_S = {"auth": 60.0, "blocked": 60.0, "quota": 60.0}


class Circuit:
    """Remembers why a provider is left alone, and until when.

    A used-up quota closes it until the provider's own reset (a minute at most), a refused key or a block page
    for a minute, and `threshold` failures to be reached in a row for five seconds.
    """

    def __init__(self, *, threshold: int = 3, clock: Callable[[], float] = time.monotonic) -> None:
        self._threshold = threshold
        self._clock = clock
        self._downs = 0
        self._until = 0.0
        self._error: ProviderFailure | None = None

    def require_closed(self) -> None:
        """Raise the failure that opened the circuit while its pause lasts."""
        left_s = self._until - self._clock()
        if self._error is not None and left_s > 0:
            raise type(self._error)(self._error.detail, retry_after_s=left_s)

    def succeeded(self) -> None:
        """The provider gave an answer."""
        self._downs = 0
        self._error = None

    def failed(self, error: ProviderFailure) -> None:
        """The provider failed; the kind of failure says for how long it is left alone."""
        pause_s = _PAUSES_S.get(error.kind, 0.0)
        if error.kind == "quota" and error.retry_after_s is not None:
            pause_s = min(error.retry_after_s, _LONGEST_S)
        if isinstance(error, UpstreamDown):
            self._downs += 1
            pause_s = _DOWN_PAUSE_S if self._downs >= self._threshold else 0.0
        if pause_s > 0:
            self._error, self._until = error, self._clock() + pause_s
