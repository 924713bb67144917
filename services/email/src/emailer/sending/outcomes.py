"""The meaning of SMTP replies: a table of rules that say what a reply is about, and what follows from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

MINUTE_S = 60.0
HOUR_S = 3600.0

# Waits that suit transactional mail: short at first, then longer; the last repeats until the mail expires.
SCHEDULE_S = (MINUTE_S, 5 * MINUTE_S, 15 * MINUTE_S, HOUR_S, 4 * HOUR_S, 8 * HOUR_S)
# A full mailbox is not emptied within a minute.
MAILBOX_FULL_S = HOUR_S

_MAILBOX_FULL = re.compile(r"(^|\s)4\.2\.2\b")
# Every quantifier is bounded: a reply may repeat an invitation ten thousand times.
_TRY_AGAIN = re.compile(
    r"""(?:try\ again|retry|come\ back|wait|greylist\w{0,10}+|defer\w{0,10}+)  # an invitation
    \D{0,40}?\b(\d{1,6})\s{0,5}                                # a number, soon after it
    (s|m|h)(?:ec(?:ond)?s?|in(?:ute)?s?|(?:ou)?rs?)?\b           # and its unit
    """,
    re.IGNORECASE | re.VERBOSE,
)
# As milter-greylist says it: hours, minutes and seconds.
_COME_BACK = re.compile(r"\b(?:in|after)\s{1,5}(\d{1,2}):(\d\d):(\d\d)\b", re.IGNORECASE)
_UNIT_S = {"s": 1.0, "m": MINUTE_S, "h": HOUR_S}

Stage = Literal["greeting", "hello", "starttls", "login", "mail", "recipient", "data", "content"]
# The first three are about the recipient, and only they count as attempts; a new session is tried at once;
# the last three pause the route.
Verdict = Literal["delivered", "deferred", "failed", "new-session", "unreachable", "login-refused", "limited"]
# What a reply is about. Refusals of a mail are watched for bursts, which a wrong setting would cause. Those
# of its content are not, because any owner could cause them.
Whose = Literal["recipient", "content", "mail", "owner", "session", "route"]


@dataclass(frozen=True, slots=True)
class SmtpReply:
    """An SMTP server's reply: a three-digit code and its text, with lines joined by a newline."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


@dataclass(frozen=True, slots=True)
class SmtpAnswer:
    """The decisive reply, and the stage of the conversation at which it came.

    `content` is the stage after the final dot. `logged_in` says whether the session was logged in, `reused`
    whether mails had been handed over on it before.
    """

    reply: SmtpReply
    stage: Stage
    logged_in: bool = False
    reused: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """The meaning of an answer whose stage, code and text match; a condition that is None always matches."""

    name: str
    stages: tuple[Stage, ...]
    codes: re.Pattern[str]
    whose: Whose
    verdict: Verdict
    says: re.Pattern[str] | None = None
    logged_in: bool | None = None
    reused: bool | None = None

    def matches(self, answer: SmtpAnswer) -> bool:
        """Return whether this rule applies to `answer`."""
        return (
            answer.stage in self.stages
            and self.codes.fullmatch(str(answer.reply.code)) is not None
            and (self.says is None or self.says.search(answer.reply.text) is not None)
            and self.logged_in in (None, answer.logged_in)
            and self.reused in (None, answer.reused)
        )


_ANY = re.compile(r"\d+")
_TEMPORARY = re.compile(r"4\d\d")
_REFUSED = re.compile(r"[45]\d\d")
_PERMANENT = re.compile(r"5\d\d")
# 530 and 535 by RFC 4954, with 534 and 538 of the same family: about logging in. 503, a command out of
# sequence, comes from relays that miss AUTH before it.
_LOGIN = re.compile(r"53[0458]")
_LOGIN_FIRST = re.compile(r"53[0458]|503")
# The session ends, or the relay expects something else at this point: neither is about the mail.
_OUT_OF_STEP = re.compile(r"421|50[023]")
_OPENING: tuple[Stage, ...] = ("greeting", "hello", "starttls")
_BEFORE_CONTENT: tuple[Stage, ...] = ("mail", "recipient", "data")
_OF_MAIL: tuple[Stage, ...] = (*_BEFORE_CONTENT, "content")
# RFC 3463 has x.4.5 for congestion; providers use it for quotas.
_LIMIT = re.compile(
    r"(^|\s)[45]\.4\.5\b|quota|(rate|sending|message|hourly|daily)\s+limit|limit\s+(is\s+)?(exceeded|reached)"
    r"|rate\s+exceed|too\s+many\s+(messages|mails|e-?mails|connections)",
    re.IGNORECASE,
)

# Said of what we may send at any stage: 5.4.5, and words that no server uses of a mailbox that is full.
_SENDING_LIMIT = re.compile(
    r"(^|\s)5\.4\.5\b|sending\s+(quota|limit)|(mail|message|sending)\s+rate\s+(limit|exceed)", re.IGNORECASE
)
# What one session may carry, and not what we may send. x.4.2 of RFC 3463 is a bad connection, x.5.1 a command
# out of sequence.
_OF_SESSION = re.compile(
    r"(^|\s)[45]\.(4\.2|5\.1)\b"
    r"|\b((in|on|for|per|over)\s+((one|a|the|each)\s+)?|this\s+)(this\s+)?(smtp\s+)?(session|connection)\b",
    re.IGNORECASE,
)

# RFC 3463: x.1.1 to x.1.3, x.1.6 and x.1.10 are about the recipient's address; x.7.x is policy.
_NO_ADDRESS = re.compile(r"(^|\s)5\.1\.(1|2|3|6|10)\b")
_POLICY = re.compile(r"(^|\s)[45]\.7\.\d+\b")
# x.2.3 and x.3.4: the mail is too large. x.6.x: it needs something that the relay does not have.
_TOO_MUCH = re.compile(r"(^|\s)5\.(2\.3|3\.4|6\.\d+)\b|message\s+size\s+(limit|exceed)", re.IGNORECASE)

# The first that matches counts. A reply about one recipient or one mail never pauses the route.
RULES = (
    # Nearly every answer is this one.
    Rule("a mail that is taken", ("content",), re.compile(r"2\d\d"), "mail", "delivered"),
    Rule("a login that is not possible now", ("login",), _TEMPORARY, "route", "unreachable"),
    Rule("a login that is refused", ("login",), _ANY, "route", "login-refused"),
    Rule("a relay that wants a login first", _OPENING, _LOGIN, "route", "login-refused"),
    Rule("a relay that turns us away", _OPENING, _ANY, "route", "unreachable"),
    # Before the rules about mails: if the reply was about the mail after all, a new session gets it again.
    Rule("a kept session that ends", _BEFORE_CONTENT, _OUT_OF_STEP, "session", "new-session", reused=True),
    Rule(
        "a kept session that has had enough",
        _BEFORE_CONTENT,
        _REFUSED,
        "session",
        "new-session",
        says=_OF_SESSION,
        reused=True,
    ),
    Rule("a sender that must log in", ("mail",), _LOGIN_FIRST, "route", "login-refused", logged_in=False),
    # Before the limits: "message size limit exceeded" is about one mail.
    Rule("a mail that the relay cannot carry", _OF_MAIL, _PERMANENT, "content", "failed", says=_TOO_MUCH),
    Rule("a limit of what we may send", ("mail",), _REFUSED, "route", "limited", says=_LIMIT),
    # The limit ends by itself. It never pauses the route, because a recipient's server may say the same.
    Rule(
        "a limit of what we may send that comes late",
        ("recipient", "data", "content"),
        _PERMANENT,
        "recipient",
        "deferred",
        says=_SENDING_LIMIT,
    ),
    # Permission to send as a sender is often corrected before the mail expires.
    Rule("a sender that policy refuses", ("mail",), _PERMANENT, "owner", "deferred", says=_POLICY),
    Rule("a sender that needs another login", ("mail",), _LOGIN, "owner", "deferred"),
    # Without any login this may well be a wrong setting, which must not fail every mail permanently.
    Rule("a recipient that needs a login", _OF_MAIL, _LOGIN_FIRST, "mail", "deferred", logged_in=False),
    Rule("a command out of sequence", _OF_MAIL, re.compile("503"), "session", "deferred"),
    Rule(
        "an address that does not exist",
        ("recipient", "content"),
        _PERMANENT,
        "recipient",
        "failed",
        says=_NO_ADDRESS,
    ),
    Rule("a mail or a recipient that is refused", _OF_MAIL, _PERMANENT, "mail", "failed"),
    # Any unexpected reply counts as a temporary refusal, never as a delivery.
    Rule("not now", _OF_MAIL, _ANY, "recipient", "deferred"),
)


def with_own(own: Sequence[Rule]) -> tuple[Rule, ...]:
    """Return all rules, the operator's own first; an accepted mail is always delivered."""
    return (RULES[0], *own, *RULES[1:])


def judge(answer: SmtpAnswer) -> Verdict:
    """Return the verdict of the built-in rules on `answer`."""
    return rule_of(answer).verdict


def rule_of(answer: SmtpAnswer, rules: Sequence[Rule] | None = None) -> Rule:
    """Return which of `rules`, by default the built-in ones, applies; there is one for every answer."""
    if answer.stage == "content" and 200 <= answer.reply.code < 300:
        # Nearly every answer, and no rule comes before this one.
        return RULES[0]
    return next(rule for rule in rules or RULES if rule.matches(answer))


def wait_s(tries: int, *, reply: SmtpReply | None = None, scale: float = 1) -> float:
    """Return the seconds until the attempt after `tries` (at least 1); the relay's request comes first."""
    planned = SCHEDULE_S[min(tries, len(SCHEDULE_S)) - 1]
    wished = None if reply is None else wished_wait_s(reply.text)
    if wished is not None:
        # A receiver that always asks for the next second would otherwise be tried 86,400 times a day.
        return max(wished, planned / 100) * scale
    if reply is not None and 400 <= reply.code < 500 and _MAILBOX_FULL.search(reply.text):
        planned = max(planned, MAILBOX_FULL_S)
    return planned * scale


def wished_wait_s(text: str) -> float | None:
    """Return the seconds that a reply asks to wait ("try again in 5 minutes"), from 1 second to 24 hours."""
    if match := _TRY_AGAIN.search(text):
        wished = float(match[1]) * _UNIT_S[match[2].lower()]
    elif match := _COME_BACK.search(text):
        wished = sum(
            int(part) * unit_s for part, unit_s in zip(match.groups(), (HOUR_S, MINUTE_S, 1), strict=True)
        )
    else:
        return None
    return min(max(wished, 1.0), 24 * HOUR_S)
