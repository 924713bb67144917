"""The quota of an upstream, and what each owner has used of it."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from chassis import metrics, shares
from stock_data.errors import NothingLeft, ShareUsedUp

# The owners of a call that several share; None for a call of the owner in `shares.current` alone.
sharing: ContextVar[frozenset[str] | None] = ContextVar("sharing", default=None)

# A quota without a reset of its own is taken for one of a minute, as a longer one is.
_PERIOD_S = 60.0
# One divided by the part of the quota that an owner may use even if others have left only the reserve.
_FEW = 32
# While others ask, an owner has up to this times what it leaves free.
_WEIGHT = 3
# Python refuses to read numbers of thousands of digits.
_COUNT = re.compile("[0-9]{1,15}")


def callers() -> frozenset[str]:
    """Return the owners that the present call is made for; a batch of an owner counts as the owner."""
    shared = sharing.get()
    return frozenset({shares.current.get().partition("/")[0]}) if shared is None else shared


class Budget:
    """Shares the quota that `name` tells in its answers among owners.

    An owner that asks alone may use all but an eighth, which is left for those that begin to ask. While
    others ask, or have asked in the period before, it may use three times what it leaves free
    (`shares.has_room`). Calls of other replicas and programs count, because the upstream counts them.
    What is left of the quota is what the last answer told, without the calls that are made now: one that gets
    no answer takes nothing from it.
    """

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        # Unknown until the first answer.
        self._most: int | None = None
        self._left = 0
        self._at_work = 0
        self._ends_at = 0.0
        self._used: Counter[str] = Counter()
        self._asked_before: frozenset[str] = frozenset()

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take over the quota from the headers of an answer: size, remaining calls, and reset."""
        most, left, reset = (
            headers.get(f"x-ratelimit-{name}", "") for name in ("limit", "remaining", "reset")
        )
        if not _COUNT.fullmatch(left):
            return
        metrics.PROVIDER_QUOTA.labels(self._name).set(int(left))
        if not _COUNT.fullmatch(most):
            return
        self._begin_period()
        self._most, self._left = int(most), int(left)
        if _COUNT.fullmatch(reset):
            left_s = max(1.0, int(reset) - time.time())
            self._ends_at = min(self._ends_at, self._clock() + left_s)

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count the call that the block makes in the share of its owner; raise as `spend` does."""
        self.spend()
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1

    def spend(self) -> None:
        """Count a call of the owner in `shares.current`, none for a service itself.

        Nor does a call count that several share: each of them has spent one. Raise `ShareUsedUp` when the
        owner has its share, `NothingLeft` when the quota is used up.
        """
        self._begin_period()
        owner_id = "" if sharing.get() is not None else next(iter(callers()))
        if not owner_id:
            return
        own, most = self._used[owner_id], self._most
        if most is not None:
            others = (self._asked_before | self._used.keys()) - {owner_id}
            few, weight = max(1, most // _FEW), _WEIGHT if others else most
            left = self._left - self._at_work
            if not shares.has_room(own, held=most - left, most=most, few=few, weight=weight):
                retry_after_s = max(1.0, self._ends_at - self._clock())
                if left <= 0:
                    words = f"The quota of {self._name} is used up for now."
                    raise NothingLeft(words, retry_after_s=retry_after_s)
                words = f"Your share of {self._name}'s quota is used up; the rest is for other owners."
                raise ShareUsedUp(words, retry_after_s=retry_after_s)
        self._used[owner_id] += 1

    def charge(self, owner_id: str) -> None:
        """Count one more call that was made because of an owner."""
        if owner_id:
            self._used[owner_id] += 1

    def refund(self, owner_id: str) -> None:
        """Take back a call of an owner that brought no answer."""
        if self._used[owner_id]:
            self._used[owner_id] -= 1

    def _begin_period(self) -> None:
        """Forget the period before once its time is over."""
        if self._clock() < self._ends_at:
            return
        self._asked_before = frozenset(self._used)
        self._used.clear()
        self._left = self._most or 0
        self._ends_at = self._clock() + _PERIOD_S
