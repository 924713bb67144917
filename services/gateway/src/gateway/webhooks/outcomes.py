"""The outcome of an attempt, judged by the status of the answer or by the error in place of one."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

from gateway.webhooks.inputs import DeliveryStatus

Kind = Literal["succeeded", "failed", "gone"]

# Seconds from a failed attempt to the next one: ten attempts within a little more than three days.
RETRY_AFTER_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
MOST_ATTEMPTS = len(RETRY_AFTER_S) + 1
# Receivers that fail together are not asked again together.
_JITTER = 0.1
_GONE = 410
_WAITS = frozenset({429, 503})
_SECONDS = re.compile(r"[0-9]{1,6}")


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """The outcome of an attempt, and the new status of its delivery.

    `reason` is for the owner of the webhook; `retry_in_s` is None when there is no other attempt.
    """

    kind: Kind
    delivery_status: DeliveryStatus
    reason: str = ""
    retry_in_s: float | None = None
    status: int | None = None
    error: str | None = None
    answer: str | None = None


def judge(
    attempts: int,
    *,
    status: int | None = None,
    error: str | None = None,
    retry_after: str | None = None,
    answer: str | None = None,
) -> AttemptOutcome:
    """Return the outcome of the attempt with this number: only 2xx succeeds, and 410 ends the webhook."""
    if status is not None and 200 <= status < 300:
        return AttemptOutcome("succeeded", "succeeded", status=status, answer=answer)
    if status == _GONE:
        reason = "The receiver answered 410 Gone."
        return AttemptOutcome("gone", "failed", reason, status=status, answer=answer)
    reason = error or f"The receiver answered {status}; only 2xx is a success."
    if attempts >= MOST_ATTEMPTS:
        return AttemptOutcome("failed", "failed", reason, status=status, error=error, answer=answer)
    usual_s = RETRY_AFTER_S[attempts - 1] * random.uniform(1, 1 + _JITTER)  # noqa: S311 - not a secret
    asked_s = _asked_s(retry_after) if status in _WAITS else 0.0
    retry_in_s = max(usual_s, min(asked_s, RETRY_AFTER_S[-1]))
    return AttemptOutcome("failed", "pending", reason, retry_in_s, status=status, error=error, answer=answer)


def _asked_s(retry_after: str | None) -> float:
    """Return the seconds that the receiver asks to wait; a date is ignored."""
    return float(retry_after) if retry_after and _SECONDS.fullmatch(retry_after) else 0.0
