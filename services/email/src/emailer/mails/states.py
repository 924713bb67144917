"""The states of a recipient, and how they make up a mail's status."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, get_args

from contracts.emails import EmailStatus, RecipientStatus

# No further attempt is made at a recipient in one of these states.
FINAL: frozenset[RecipientStatus] = frozenset(("delivered", "failed", "suppressed", "expired", "cancelled"))
ALL: tuple[RecipientStatus, ...] = get_args(RecipientStatus)

# A recipient may fail before anything is sent: its address was invalid.
_NOT_BEGUN: frozenset[RecipientStatus] = frozenset(("queued", "failed", "suppressed"))
# The reasons why nobody got a mail; the worst comes first.
_UNDELIVERED: tuple[Literal["failed", "expired", "cancelled", "suppressed"], ...] = (
    *("failed", "expired"),
    *("cancelled", "suppressed"),
)
_WAITING: frozenset[RecipientStatus] = frozenset(("deferred", "ambiguous"))


def summed_up(recipients: Collection[RecipientStatus]) -> EmailStatus:
    """Return the status of a mail with these recipients; a mail without any has failed.

    While one is still to be tried the mail is `queued` (nothing has happened yet), `sending` or `deferred`
    (all that is open waits for another attempt); `held` when all that is open waits for a decision. When
    nobody got it, the worst that happened to a recipient counts, and `suppressed` says that nothing was sent.
    """
    found = set(recipients)
    if not found:
        return "failed"
    if "sending" in found:
        return "sending"
    if "queued" in found:
        return "queued" if found <= _NOT_BEGUN else "sending"
    if found & _WAITING:
        return "deferred"
    if "held" in found:
        return "held"
    if found == {"delivered"}:
        return "delivered"
    if "delivered" in found:
        return "partially_delivered"
    return next(status for status in _UNDELIVERED if status in found)
