"""Tolerant parsing of mails: each accessor catches its own failures and falls back to the raw text.

The older half of the standard library's parser (`compat32`) is used, because it keeps what it does not
understand; the newer one raises on short broken headers, and takes quadratic time for long ones.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes
from email.message import Message
from email.policy import compat32
from email.utils import getaddresses, parsedate_to_datetime
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

# A longer header is not parsed but shown as it is.
_LONGEST_HEADER = 16 * 1024
# The parser compares every line with every boundary that is open, and passes it through every mail around it.
_MOST_COMPARISONS = 3_000_000
# Each block of a report becomes a message of its own.
_MOST_BLOCKS = 10_000
_MOST_HEADER_LINES = 20_000
# Headers that are shown, those of one name whose addresses are read, and addresses.
MOST_HEADERS = 2_000
_MOST_OF_A_NAME = 20
MOST_PEOPLE = 1_000
# The time that the parser takes for the parameters of a header grows with the square of its length: this
# many are read in half a second.
_MOST_SQUARES = 2**31
_MOST_PARTS = 1000
# Uuencoded lines may hold fifteen times their length: of a longer part, they are shown as they are.
_MOST_UUENCODED = 1024 * 1024
_UUENCODED = ("x-uuencode", "uuencode", "uue", "x-uue")
_DEEPEST = 100

_WITH_PARAMETERS = re.compile(
    rb"(?:^|\r)content-(?:type|disposition):[^\n]*+(?:\n[ \t][^\n]*+)*+", re.IGNORECASE | re.MULTILINE
)
_EMPTY_LINE = re.compile(rb"\n\r?\n")
_ENCODED_WORD = re.compile(r"=\?([^?\s]+)\?([bBqQ])\?([^?\s]*)\?=")
_BETWEEN_WORDS = re.compile(r"(\?=)\s+(?==\?)")
_SURROGATES = re.compile("[\ud800-\udfff]")
_CONTENT_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*")
# Python codecs that are not character sets of mails: they take quadratic time, or always fail.
_NO_CHARSETS = frozenset(("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"))


@dataclass(frozen=True, slots=True)
class AttachedPart:
    """A part that is not shown as the body; `number` is its position among the parts."""

    number: int
    filename: str
    content_type: str
    content_id: str
    is_inline: bool
    content: bytes


class ReadMail:
    """A mail parsed from `raw`. No method raises, whatever the bytes are."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._mail = attempted(lambda: _parse(raw), None)
        self.is_readable = self._mail is not None
        self._headers = attempted(
            lambda: list(islice(_raw_headers(self._mail), MOST_HEADERS)), list[tuple[str, str]]()
        )
        self._parts = attempted(lambda: list(_leaves(self._mail)), list[Message]())
        self._text = self._first_body("text/plain")
        self._html = self._first_body("text/html")

    def header(self, name: str) -> str:
        """Return the first header of that name, decoded, or an empty text."""
        return next(iter(self.headers_named(name)), "")

    def headers_named(self, name: str) -> list[str]:
        """Return all headers of that name, decoded."""
        return [decoded_words(value) for value in self._raw_headers(name)]

    def headers(self) -> dict[str, list[str]]:
        """Return every header with all its values."""
        found: dict[str, list[str]] = {}
        for name, value in self._headers:
            found.setdefault(name, []).append(decoded_words(value))
        return found

    def people(self, name: str) -> list[tuple[str, str]]:
        """Return the (name, address) pairs of an address header; an invalid entry is kept as an address."""
        found = (person for value in self._raw_headers(name)[:_MOST_OF_A_NAME] for person in _people(value))
        return list(islice(found, MOST_PEOPLE))

    def date(self) -> datetime | None:
        """Return the Date header."""
        return attempted(lambda: parsedate_to_datetime(self.header("date")), None)

    def text(self) -> str:
        """Return the plain text, or the whole mail if it cannot be parsed."""
        if not self.is_readable:
            return decoded(self._raw)
        return "" if self._text is None else _text(self._text)

    def html(self) -> str:
        """Return the HTML body, or an empty text."""
        return "" if self._html is None else _text(self._html)

    def files(self) -> Iterator[AttachedPart]:
        """Yield the attachments and inline parts, with their original bytes."""
        for number, part in enumerate(self._parts):
            if part is not self._text and part is not self._html:
                headers = {name.lower(): value for name, value in _raw_headers(part)}
                yield AttachedPart(
                    number=number,
                    filename=_filename(part),
                    content_type=_content_type(part),
                    content_id=headers.get("content-id", "").strip("<> "),
                    is_inline=_disposition(part) == "inline",
                    content=_content(part),
                )

    def _raw_headers(self, name: str) -> list[str]:
        return [value for found, value in self._headers if found.lower() == name.lower()]

    def _first_body(self, content_type: str) -> Message | None:
        for part in self._parts:
            is_file = _disposition(part) == "attachment" or _filename(part)
            if _content_type(part) == content_type and not is_file:
                return part
        return None


def attempted(function: Callable[[], T], fallback: T) -> T:
    """Return the result of `function`, or `fallback` when it raises."""
    try:
        return function()
    # Parsers of the standard library raise almost anything for broken mails, RecursionError included.
    except Exception:
        return fallback


def decoded(octets: bytes, charset: str = "") -> str:
    """Return `octets` as text that JSON can contain: by `charset` if valid, else as UTF-8 or Latin-1."""
    text = attempted(lambda: _decode(octets, charset), None) if charset else None
    if text is None:
        text = attempted(octets.decode, None)
    return _SURROGATES.sub("\ufffd", octets.decode("latin-1") if text is None else text)


def decoded_words(value: str) -> str:
    """Return a header's text with its encoded words (RFC 2047) decoded."""
    value = value.replace("\r", "").replace("\n", "")
    if len(value) > _LONGEST_HEADER:
        return value
    return _ENCODED_WORD.sub(_decoded_word, _BETWEEN_WORDS.sub(r"\1", value)).strip()


def _decoded_word(word: re.Match[str]) -> str:
    charset, encoding, text = word.groups()
    if encoding.lower() == "b":
        octets = attempted(lambda: codecs.decode(text.encode(), "base64"), None)
    else:
        octets = attempted(lambda: codecs.decode(text.replace("_", "=20").encode(), "quopri"), None)
    return word[0] if octets is None else decoded(octets, charset.partition("*")[0])


def _decode(octets: bytes, charset: str) -> str:
    if codecs.lookup(charset).name.replace("_", "-") in _NO_CHARSETS:
        raise LookupError(charset)
    return octets.decode(charset, "replace")


def _parse(raw: bytes) -> Message:
    lower = raw.lower()
    around = lower.count(b"multipart/") + lower.count(b"message/rfc822")
    if around * raw.count(b"\n") > _MOST_COMPARISONS:
        raise ValueError("too many parts in too many lines")
    if b"message/delivery-status" in lower and len(_EMPTY_LINE.findall(raw)) > _MOST_BLOCKS:
        raise ValueError("a report of too many blocks")
    head_end = _EMPTY_LINE.search(raw)
    if raw.count(b"\n", 0, head_end.start() if head_end else len(raw)) > _MOST_HEADER_LINES:
        raise ValueError("too many lines of headers")
    if sum(len(found[0]) ** 2 for found in _WITH_PARAMETERS.finditer(raw)) > _MOST_SQUARES:
        raise ValueError("headers with too many parameters")
    mail: Message = message_from_bytes(raw, policy=compat32)
    return mail


def _leaves(mail: Message | None) -> Iterator[Message]:
    """Yield the parts that contain no others, in order; an attached mail is one part."""
    pending = [(mail, 0)] if mail is not None else []
    count = 0
    while pending and count < _MOST_PARTS:
        part, depth = pending.pop()
        payload = part.get_payload()
        if isinstance(payload, list) and part.get_content_maintype() != "message" and depth < _DEEPEST:
            pending.extend((child, depth + 1) for child in reversed(payload) if isinstance(child, Message))
        else:
            count += 1
            yield part


def _raw_headers(mail: Message | None) -> Iterator[tuple[str, str]]:
    for name, value in mail.raw_items() if mail is not None else ():
        octets = str(value).encode("utf-8", "surrogateescape")
        yield decoded(name.encode("utf-8", "surrogateescape")), decoded(octets)


def _people(value: str) -> list[tuple[str, str]]:
    line = value.replace("\r", "").replace("\n", "").strip()
    if len(line) > _LONGEST_HEADER:
        return [("", line)]
    found = attempted(lambda: getaddresses([line]), list[tuple[str, str]]())
    people = [(decoded_words(name), address) for name, address in found if name or address]
    return people or ([("", line)] if line else [])


def _content_type(part: Message) -> str:
    found = attempted(lambda: str(part.get_content_type()), "")
    return found if _CONTENT_TYPE.fullmatch(found) else "application/octet-stream"


def _filename(part: Message) -> str:
    name = attempted(lambda: part.get_filename() or "", "")
    return decoded_words(decoded(str(name).encode("utf-8", "surrogateescape")))


def _disposition(part: Message) -> str:
    return attempted(lambda: part.get_content_disposition() or "", "")


def _text(part: Message) -> str:
    charset = attempted(lambda: str(part.get_content_charset() or ""), "")
    return decoded(_content(part), charset)


def _content(part: Message) -> bytes:
    payload = part.get_payload()
    if isinstance(payload, list):
        return attempted(
            lambda: b"\r\n".join(child.as_bytes() for child in payload if isinstance(child, Message)), b""
        )
    encoding = attempted(lambda: str(part["content-transfer-encoding"]).strip().lower(), "")
    is_whole = encoding not in _UUENCODED or len(str(payload)) <= _MOST_UUENCODED
    octets = attempted(lambda: part.get_payload(decode=True), None) if is_whole else None
    return octets if isinstance(octets, bytes) else str(payload).encode("utf-8", "surrogateescape")
