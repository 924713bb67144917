"""Classification of failures: whether a server's reply, or a bounce's status, is about the address itself."""

from __future__ import annotations

import re
from typing import Literal

# `gone`: the address does not exist. `hard`: it was refused permanently. `soft`: temporarily, or it is full.
# `refused`: the mail or its sender was refused, by policy or for its content; says nothing about the address.
Fault = Literal["gone", "hard", "soft", "refused"]

# Not a part of an IP address, nor the version of a server ("Exim 4.96.2": in all codes that there are the
# second part has one digit); a full stop may follow.
_STATUS = re.compile(r"(?<![\d.])([245])\.(\d)\.(\d{1,3})(?!\.?\d)")
# Words in replies that have no enhanced status code, or an unspecific one.
_POLICY = re.compile(
    r"spam|policy|policies|reputation|black\s*-?list|block\s*-?list|\bblocked\b|\bdns[bw]l\b|\brbl\b|\bspf\b|dkim|dmarc"
    r"|relay(ing)?\s+(access\s+)?(is\s+)?(denied|not\s+(permitted|allowed))|authentication|not\s+authori[sz]ed",
    re.IGNORECASE,
)
# Only said of a mailbox: a full disk of the server is temporary anyway.
_FULL_MAILBOX = re.compile(
    r"over\s*-?quota|quota\s+(is\s+)?(exceeded|full)|(mailbox|inbox|account)\s+(is\s+)?(full|over)|full\s+(mailbox|inbox)",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"\b(mailbox|user|recipient|account|address)\b", re.IGNORECASE)
# 5.4.1 by RFC 3463 is a host that does not answer, which cannot be permanent. Exchange Online says it of a
# recipient that does not exist ("Recipient address rejected: Access denied"), and servers of a domain that
# they do not relay for. 5.5.0 is an error of the conversation; Outlook.com says it of a mailbox that it does
# not have.
_VAGUE = ("5.0.0", "5.1.0", "5.4.1")
# Codes of RFC 3463 and RFC 7505 that are about the recipient: mailbox, system, mailing list, or null MX. The
# ones of three digits are Exchange Online's.
_GONE = frozenset(("5.1.1", "5.1.2", "5.1.10"))
_HARD = frozenset(
    ("5.0.0", "5.1.0", "5.1.3", "5.1.4", "5.1.5", "5.1.6", "5.2.0", "5.2.1", "5.4.4", "5.4.310")
)
_SOFT = frozenset(("5.2.2", "5.4.0", "5.4.2", "5.4.3", "5.4.5", "5.4.7", "5.4.300", "5.4.312", "5.4.316"))
# Codes about an address, if there is no enhanced status: 521 and 556 are of hosts that accept no mail at all.
_HARD_CODES = frozenset((521, 550, 551, 553, 556))
_FULL = 552


def status_in(text: str) -> str | None:
    """Return the first enhanced status code (RFC 3463) in a reply, or None."""
    match = _STATUS.search(text)
    return match[0] if match else None


def judge(code: int | None, text: str, *, status: str | None = None, at_recipient: bool) -> Fault:
    """Return the meaning of a refusal for the address: whether the address is at fault, and how.

    `status` is the enhanced status code; by default it is searched for in `text`. `at_recipient` says whether
    the answer was about the recipient's address, and not about the content.
    """
    status = status or status_in(text)
    if status is None or status in _VAGUE or (status == "5.5.0" and _ADDRESS.search(text)):
        if _POLICY.search(text):
            return "refused"
        if _FULL_MAILBOX.search(text):
            return "soft"
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
        return "soft" if _FULL_MAILBOX.search(text) else "hard"
    return "soft" if status in _SOFT else "refused"
