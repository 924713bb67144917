"""Judging failures: whether a reply of a server, or the status in a bounce, speaks against the address."""

from __future__ import annotations

import re
from typing import Literal

# `gone`: there is no such address. `hard`: it was refused for good. `soft`: for now, or because it is full.
# `refused`: the mail or its sender was refused, by policy or for its content: nothing about the address.
Fault = Literal["gone", "hard", "soft", "refused"]

_STATUS = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.])")
# Words of replies that have no status of their own, or one that says nothing.
_POLICY = re.compile(
    r"spam|policy|policies|reputation|black\s*-?list|block\s*-?list|\bblocked\b|\bdns[bw]l\b|\brbl\b|\bspf\b|dkim|dmarc"
    r"|relay(ing)?\s+(access\s+)?(is\s+)?(denied|not\s+(permitted|allowed))|authentication|not\s+authori[sz]ed",
    re.IGNORECASE,
)
_VAGUE = ("5.0.0", "5.1.0")
# By RFC 3463 and RFC 7505: mailbox, system, mailing list or null MX, as far as they are about the recipient.
_GONE = frozenset(("5.1.1", "5.1.2", "5.1.10"))
_HARD = frozenset(("5.0.0", "5.1.0", "5.1.3", "5.1.4", "5.1.5", "5.1.6", "5.2.0", "5.2.1", "5.4.4"))
_SOFT = frozenset(("5.2.2", "5.4.0", "5.4.1", "5.4.2", "5.4.3", "5.4.5", "5.4.7"))
# Codes about an address, where no status says more: 521 and 556 by hosts that take no mail at all.
_HARD_CODES = frozenset((521, 550, 551, 553, 556))
_FULL = 552


def status_in(text: str) -> str | None:
    """Return the enhanced status code (RFC 3463) that a reply names first."""
    match = _STATUS.search(text)
    return match[0] if match else None


def judge(code: int | None, text: str, *, status: str | None = None, at_recipient: bool) -> Fault:
    """Return the fault of the address that a refusal shows.

    `status` is the enhanced status code, looked for in `text` by default. `at_recipient` tells whether the
    answer was about the recipient's address, and not about the content.
    """
    status = status or status_in(text)
    if status is None or status in _VAGUE:
        if _POLICY.search(text):
            return "refused"
        if status is None:
            if code is None or not at_recipient:
                return "refused"
            if code in _HARD_CODES:
                return "hard"
            return "soft" if code == _FULL or code < 500 else "refused"
        return "hard" if at_recipient else "refused"
    if status.startswith("4."):
        return "soft"
    if status in _GONE:
        return "gone" if at_recipient else "hard"
    if status in _HARD:
        return "hard"
    return "soft" if status in _SOFT else "refused"
