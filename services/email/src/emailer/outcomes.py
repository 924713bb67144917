"""What an SMTP reply means for a recipient, and when to try again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

MINUTE_S = 60.0
HOUR_S = 3600.0

# Suits transactional mail: soon at first, then patient; the last wait repeats until the mail expires.
SCHEDULE_S = (MINUTE_S, 5 * MINUTE_S, 15 * MINUTE_S, HOUR_S, 4 * HOUR_S, 8 * HOUR_S)
# A full mailbox is not emptied within a minute.
MAILBOX_FULL_S = HOUR_S

# 530 and 535 by RFC 4954, with 534 and 538 of the same family: the relay and we disagree on the login.
_AUTHENTICATION = frozenset((530, 534, 535, 538))
_MAILBOX_FULL = re.compile(r"(^|\s)4\.2\.2\b")
_TRY_AGAIN = re.compile(
    r"""(?:try\ again|retry|come\ back|wait|greylist\w*|defer\w*)  # an invitation
    \D{0,40}?\b(\d{1,6})\s*                                     # a number, soon after it
    (s|m|h)(?:ec(?:ond)?s?|in(?:ute)?s?|(?:ou)?rs?)?\b           # and its unit
    """,
    re.IGNORECASE | re.VERBOSE,
)
_UNIT_S = {"s": 1.0, "m": MINUTE_S, "h": HOUR_S}

Verdict = Literal["delivered", "deferred", "failed", "refused-login"]


@dataclass(frozen=True, slots=True)
class Reply:
    """An SMTP server's words: a code of three digits and its text, lines joined by a newline."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


def judge(reply: Reply, *, after_content: bool) -> Verdict:
    """What `reply` says about the recipient; `after_content` when it answered the final dot."""
    if reply.code in _AUTHENTICATION:
        return "refused-login"
    if 500 <= reply.code < 600:
        return "failed"
    # Anything that is no answer to what we said is taken as "not now", never as delivered.
    return "delivered" if after_content and 200 <= reply.code < 300 else "deferred"


def wait_s(tries: int, *, reply: Reply | None = None, scale: float = 1) -> float:
    """Seconds until the next attempt after `tries` (at least 1); the relay's own wish comes first."""
    wished = None if reply is None else wished_wait_s(reply.text)
    if wished is not None:
        return wished * scale
    planned = SCHEDULE_S[min(tries, len(SCHEDULE_S)) - 1]
    if reply is not None and 400 <= reply.code < 500 and _MAILBOX_FULL.search(reply.text):
        planned = max(planned, MAILBOX_FULL_S)
    return planned * scale


def wished_wait_s(text: str) -> float | None:
    """The seconds a reply asks to wait ("try again in 5 minutes"), between 1 second and 24 hours."""
    match = _TRY_AGAIN.search(text)
    if match is None:
        return None
    return min(max(float(match[1]) * _UNIT_S[match[2].lower()], 1.0), 24 * HOUR_S)
