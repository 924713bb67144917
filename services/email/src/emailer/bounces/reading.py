"""Parsing of a bounce: a delivery status notification (RFC 3464), or one of the older formats.

A bounce is untrusted input. Its size and the numbers of its parts and lines are bounded before parsing,
so that no message takes long, and every message has a result.
"""

from __future__ import annotations

import email
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.policy import compat32
from typing import TYPE_CHECKING

from flufl.bounce import all_failures

from emailer.suppression import faults
from emailer.suppression.faults import Fault

if TYPE_CHECKING:
    # It brings pydantic, which the process that reads bounces does not need.
    from contracts.emails import BounceKind

# It logs every format that a message does not match.
logging.getLogger("flufl.bounce").setLevel(logging.CRITICAL)

# A failure is `hard` (no such address, or it refused the mail for good), `soft` (given up: away, or the
# mailbox is full) or `refused` (policy or content). `delayed` is not the end, `delivered` is no failure.
# `other` is a reply by a person or a program, or a message that could not be understood.

# The report comes before the mail that is returned with it.
MOST_BYTES = 256 * 1024
_MOST_PARTS = 40
_MOST_PARTS_OF_OLD = 10
# The report must begin within the first of these, and its blocks about recipients fit into the second; the
# parser makes a message of each block.
_MOST_BEFORE_REPORT = 64 * 1024
_MOST_REPORT_BYTES = 32 * 1024
_MOST_BLOCKS = 100
# The parser takes quadratic time for a content type's parameters.
_LONGEST_CONTENT_TYPE = 4 * 1024
# The older formats are searched for in this much of a message's beginning: each line, also an empty one,
# is compared with a hundred patterns.
_MOST_HEURISTIC_BYTES = 64 * 1024
_MOST_HEURISTIC_LINES = 1000
_LONGEST_LINE = 998
_LONGEST_TEXT = 1000
_LONGEST_WORDS = 300

# A returned mail may speak of boundaries; the parameter alone makes parts.
_PART = re.compile(rb"boundary[*0-9]*+\s*+=|message/(?:rfc822|delivery-status|partial|global)", re.IGNORECASE)
_CONTENT_TYPE = re.compile(rb"^content-type:[^\n]*(?:\n[ \t][^\n]*)*", re.IGNORECASE | re.MULTILINE)
_REPORT = re.compile(rb"^content-type:\s*message/(?:global-)?delivery-status", re.IGNORECASE | re.MULTILINE)
_AS_TEXT = "text/delivery-status"
_LINE_END = re.compile(rb"\r\n?")
_EMPTY_LINES = re.compile(rb"\n(?:[ \t]*+\n)+")
_CODE = re.compile(r"(?<![\d.])([245]\d\d)(?=[ -])")
_DELIVERED = ("delivered", "relayed", "expanded")
# OpenSMTPD says `error`, others leave off or change the end of the standard's word.
_FAILED = ("failed", "failure", "fail", "error")
# The line before the mail that a bounce of an older format returns.
_RETURNED = re.compile(
    r"^[ \t]*+-{2,}+[^\n]*?\b(?:copy|original|returned|unsent|undelivered|(?:message|mail) follows)\b",
    re.IGNORECASE | re.MULTILINE,
)
# Words in the names and local parts of programs that send bounces; persons and help desks have none of them.
_PROGRAM = re.compile(
    r"daemon|postmaster|deliver|mailer|bounce|smtp|virus|system administrator", re.IGNORECASE
)
_KINDS: dict[Fault, BounceKind] = {"gone": "hard", "hard": "hard", "soft": "soft", "refused": "refused"}


@dataclass(frozen=True, slots=True)
class Bounce:
    """A bounce that was read: its kind, the meaning for the address, and the server's words."""

    kind: BounceKind
    fault: Fault | None = None
    detail: str = ""


OTHER = Bounce("other")


def read(content: bytes) -> Bounce:
    """Return the bounce that a message to a return path reports, `OTHER` if none; nothing is raised."""
    content = _LINE_END.sub(b"\n", content[:MOST_BYTES])
    # Parsing takes time in proportion to parts times lines; no real report has that many.
    parts = len(_PART.findall(content))
    if parts > _MOST_PARTS:
        return OTHER
    if any(len(one[0]) > _LONGEST_CONTENT_TYPE for one in _CONTENT_TYPE.finditer(content)):
        return OTHER
    reports: list[Bounce] = []
    begin = _REPORT.search(content, 0, _MOST_BEFORE_REPORT)
    if begin is not None:
        try:
            blocks = _EMPTY_LINES.split(content[begin.end() : begin.end() + _MOST_REPORT_BYTES])
            report = b"\n\n".join(blocks[:_MOST_BLOCKS])
            # The parser takes blocks apart undecoded, and none of an international report (RFC 6533).
            as_text = _REPORT.sub(b"content-type: " + _AS_TEXT.encode(), content[: begin.end()] + report)
            message = email.message_from_bytes(as_text, policy=compat32)
            reports = [_judged(block) for block in _blocks(message)]
        except Exception:
            # The parser raises many kinds of exceptions for malformed messages.
            reports = []
    if reports:
        # Of several reports, as from a mailing list, the worst counts.
        order: tuple[BounceKind, ...] = ("hard", "refused", "soft", "delayed", "delivered", "other")
        return min(reports, key=lambda report: order.index(report.kind))
    # Bounces in older formats have few parts, and no report.
    return OTHER if begin is not None or parts > _MOST_PARTS_OF_OLD else _read_old(content)


def _blocks(message: Message) -> Iterator[Message]:
    """Yield the blocks of a report that are about recipients."""
    left = _MOST_BLOCKS
    for part in message.walk():
        if part.get_content_type() != _AS_TEXT:
            continue
        decoded = part.get_payload(decode=True)
        assert isinstance(decoded, bytes)
        texts = _EMPTY_LINES.split(_LINE_END.sub(b"\n", decoded).strip(b"\n"))[:left]
        left -= len(texts)
        blocks = (email.message_from_string(_decoded(text), policy=compat32) for text in texts)
        yield from (block for block in blocks if block["Action"] is not None)


def _judged(block: Message) -> Bounce:
    # A comment may follow (RFC 3464).
    action = re.split(r"[\s(;]", str(block["Action"]).strip().lower(), maxsplit=1)[0]
    status = faults.status_in(str(block["Status"] or ""))
    diagnostic = str(block["Diagnostic-Code"] or "").partition(";")[2] or str(block["Diagnostic-Code"] or "")
    host = str(block["Remote-MTA"] or "").rpartition(";")[2].strip()
    words = " ".join(f"{status or ''} {diagnostic}".split())
    detail = _plain(f"{words} ({host})" if host else words)
    if action in _DELIVERED:
        return Bounce("delivered", None, detail)
    if action == "delayed":
        return Bounce("delayed", None, detail)
    if action not in _FAILED:
        return OTHER
    # Exchange Online quotes the server that refused the mail behind its own words.
    quoted = diagnostic.rpartition("->")[2]
    refusal = quoted if _CODE.search(quoted) else diagnostic
    code = _CODE.search(refusal)
    # The status in the refusing server's text is more precise than the one a reporting server chose.
    said = faults.status_in(refusal) or status
    fault = faults.judge(int(code[1]) if code else None, refusal, status=said, at_recipient=True)
    return Bounce(_KINDS[fault], fault, detail)


def _read_old(content: bytes) -> Bounce:
    """Return the bounce that a message in one of the many formats older than RFC 3464 reports."""
    lines = _EMPTY_LINES.sub(b"\n\n", content[:_MOST_HEURISTIC_BYTES]).split(b"\n")
    cut = b"\n".join(line[:_LONGEST_LINE] for line in lines[:_MOST_HEURISTIC_LINES])
    try:
        message = email.message_from_bytes(cut, policy=compat32)
        name, at_sign, _ = str(message["From"] or "").rpartition("@")
        if at_sign and not _PROGRAM.search(name) and message["X-Failed-Recipients"] is None:
            # The forms are loose: "write to my colleagues, ann@example.com, or bob" has one of them.
            return OTHER
        temporary, permanent = all_failures(message)
        # The headers and the returned mail name versions of servers, which look like codes.
        said = _RETURNED.split("\n".join(_texts(message)), maxsplit=1)[0]
    except Exception:
        return OTHER
    if not temporary and not permanent:
        return OTHER
    status, code = faults.status_in(said), _CODE.search(said)
    at = said.find(status) if status else code.start() if code else len(said)
    # From the code before the status, if there is one, to the end of the line.
    begin = max(at - 4, said.rfind("\n", 0, at) + 1)
    words = said[begin : at + _LONGEST_WORDS].partition("\n")[0] if status or code else ""
    if not permanent:
        # The warnings that are known say of each that the server goes on trying.
        return Bounce("delayed", None, _plain(words))
    fault = faults.judge(int(code[1]) if code else 550, words, status=status, at_recipient=True)
    return Bounce(_KINDS[fault], fault, _plain(words))


def _texts(message: Message) -> Iterator[str]:
    """Yield the texts of a message, without those of mails that are attached to it."""
    if message.get_content_maintype() == "message":
        return
    if message.is_multipart():
        for part in message.get_payload():
            assert isinstance(part, Message)
            yield from _texts(part)
    elif message.get_content_maintype() != "application":
        decoded = message.get_payload(decode=True)
        assert isinstance(decoded, bytes)
        yield _decoded(decoded)


def _decoded(octets: bytes) -> str:
    """Return a text of a bounce, in UTF-8 as reports are (RFC 6533), or in whatever else as Latin-1."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def _plain(text: str) -> str:
    """Return `text` fit to be stored and shown: one line of bounded length without control characters."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.encode("utf-8", "replace").decode().split())[:_LONGEST_TEXT]
