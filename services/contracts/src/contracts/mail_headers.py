"""The headers of a mail: one line of text each, and the names that a sender may set."""

from __future__ import annotations

import re

# With the longest name, the colon and a space this stays below the limit of 998 octets a line.
MOST_VALUE = 900
MOST_HEADERS = 50

# Every separator of str.splitlines(), every other control character, and what UTF-8 cannot encode.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NAME = re.compile(r"[!-9;-~]{1,76}")
# The email service writes these itself, or mail servers add them on the way.
_RESERVED = frozenset(
    (
        *("from", "to", "cc", "bcc", "subject", "date", "message-id", "reply-to", "sender", "mime-version"),
        *("received", "return-path", "dkim-signature"),
    )
)
_RESERVED_PREFIXES = ("content-", "resent-", "arc-")
# Programs read these; RFC 2047 forbids encoded words in them.
STRUCTURED = frozenset(
    (
        *("auto-submitted", "disposition-notification-to", "errors-to", "feedback-id", "in-reply-to"),
        *("list-archive", "list-help", "list-id", "list-owner", "list-post", "list-subscribe", "precedence"),
        *("references", "return-receipt-to"),
        *("list-unsubscribe", "list-unsubscribe-post"),
    )
)


def one_line(value: str) -> str:
    """Return `value` if it is a single line: no line separator, no control character."""
    if _UNSAFE.search(value):
        raise ValueError("must be one line without control characters")
    return value


def replace_unsafe(value: str, *, most: int = MOST_VALUE) -> str:
    """Return `value` safe to store and show: unsafe characters become U+FFFD, long values are truncated."""
    return _UNSAFE.sub("\ufffd", value[:most])


def sender_headers(headers: dict[str, str]) -> dict[str, str]:
    """Return `headers` if a sender may set each of them, and none is repeated in another case."""
    seen: set[str] = set()
    for name, value in headers.items():
        lower = name.lower()
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"the header name {name!r} must be 1 to 76 printable ASCII characters without ':'"
            )
        if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
            raise ValueError(f"the header {name} is reserved and cannot be set")
        if lower in seen:
            raise ValueError(f"the header {name} is given twice")
        if lower in STRUCTURED and not value.isascii():
            raise ValueError(f"the header {name} must be ASCII")
        seen.add(lower)
    return headers
