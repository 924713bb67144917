"""A mail as it will be written: addresses, text and files. Immutable, and independent of transport."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from uuid import UUID

from contracts.parsed_addresses import ParsedAddress

# Bytes of the headers of an ordinary mail.
_LEAST_HEADING = 500


@dataclass(frozen=True, slots=True)
class File:
    """An attachment: its bytes, name and type; `content_id` (without <>) makes it inline.

    With `upload_id` its bytes are those of that upload, which are read right before it is sent.
    """

    filename: str
    content_type: str
    content: bytes
    content_id: str | None = None
    upload_id: UUID | None = None

    @property
    def is_invitation(self) -> bool:
        """Whether this is a calendar object with a method (RFC 6047), which readers can accept or decline."""
        kind, *parameters = self.content_type.lower().split(";")
        return kind == "text/calendar" and any(each.strip().startswith("method=") for each in parameters)


@dataclass(frozen=True, slots=True)
class FilledTemplate:
    """A template and its data (JSON), from which a mail's content is rendered right before it is sent."""

    name: str
    version: int
    data: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail as its readers see it, and therefore without `bcc`."""

    sender: ParsedAddress
    subject: str
    to: tuple[ParsedAddress, ...] = ()
    cc: tuple[ParsedAddress, ...] = ()
    reply_to: tuple[ParsedAddress, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    text: str | None = None
    html: str | None = None
    files: tuple[File, ...] = field(default=(), repr=False)
    template: FilledTemplate | None = None

    @property
    def needs_utf8(self) -> bool:
        """Whether an address in the headers must be written in UTF-8 (SMTPUTF8)."""
        written = (self.sender, *self.to, *self.cc, *self.reply_to)
        return any(address.needs_utf8 for address in written)

    @property
    def upload_ids(self) -> frozenset[UUID]:
        """The ids of the attached uploads."""
        return frozenset(file.upload_id for file in self.files if file.upload_id)

    @property
    def size_bytes(self) -> int:
        """The approximate number of bytes in memory, without those of uploads that were not read."""
        texts = (self.text or "", self.html or "", self.template.data if self.template else "")
        return sum(map(_kept_bytes, texts)) + self._files_bytes + self._heading_bytes

    @property
    def written_bytes(self) -> int:
        """The approximate number of octets to be written, which take the time."""
        texts = (self.text or "", self.html or "")
        octets = sum(len(text) if text.isascii() else len(_utf8(text)) for text in texts)
        return octets + self._files_bytes + self._heading_bytes

    @property
    def _files_bytes(self) -> int:
        return sum(len(file.content) for file in self.files)

    @property
    def _heading_bytes(self) -> int:
        people = (self.sender, *self.to, *self.cc, *self.reply_to)
        texts = [self.subject, *(value for _, value in self.headers)]
        texts += [text for one in people for text in (one.name, one.address)]
        return max(_LEAST_HEADING, sum(map(_kept_bytes, texts)))


def message_id(email_id: UUID, *, domain: str) -> str:
    """Return a mail's Message-ID, the same for all recipients and attempts, so that repeats are detected."""
    return f"<{email_id}@{domain}>"


def _kept_bytes(text: str) -> int:
    """Return the bytes of a text in memory, or as it is sent if these are more."""
    if text.isascii():
        return len(text)
    # One emoji makes Python keep four bytes for every character; base64 makes four octets of three.
    return max(sys.getsizeof(text), len(_utf8(text)) * 4 // 3)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
