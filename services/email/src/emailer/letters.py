"""A mail as it will be written: who, what, which files. Frozen, checked, and free of any transport."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field

from contracts.emails import Attachment, RecipientKind, SendEmail
from emailer import addresses
from emailer.addresses import Mailbox
from emailer.errors import Refused

MOST_RECIPIENTS = 500
MOST_HEADERS = 50


@dataclass(frozen=True, slots=True)
class File:
    """An attachment's bytes and how they are shown; `content_id` (without <>) makes it inline."""

    filename: str
    content_type: str
    content: bytes
    content_id: str | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """Everything that a reader sees. `bcc` is not part of it."""

    sender: Mailbox
    subject: str
    to: tuple[Mailbox, ...] = ()
    cc: tuple[Mailbox, ...] = ()
    reply_to: Mailbox | None = None
    headers: tuple[tuple[str, str], ...] = ()
    text: str | None = None
    html: str | None = None
    files: tuple[File, ...] = field(default=(), repr=False)

    @property
    def needs_utf8(self) -> bool:
        """Whether one of the addresses in the headers can only be written as UTF-8 (SMTPUTF8)."""
        written = (self.sender, *self.to, *self.cc, *((self.reply_to,) if self.reply_to else ()))
        return any(mailbox.needs_utf8 for mailbox in written)

    @property
    def size_bytes(self) -> int:
        """About how many bytes this takes in memory."""
        return (
            len(self.text or "") + len(self.html or "") + sum(len(file.content) for file in self.files) + 500
        )


@dataclass(frozen=True, slots=True)
class Addressee:
    """An envelope recipient as it was asked for; `refusal` says why it cannot be one."""

    kind: RecipientKind
    asked: str
    mailbox: Mailbox | None
    refusal: str | None = None

    @property
    def shown(self) -> str:
        """The address for the record: as understood, or as asked when it was not."""
        return self.mailbox.address if self.mailbox else addresses.without_unsafe(self.asked, longest=320)


def addressees(command: SendEmail) -> list[Addressee]:
    """The envelope recipients of `command`, each address once: to comes before cc, cc before bcc."""
    lists: dict[RecipientKind, list[str]] = {"to": command.to, "cc": command.cc, "bcc": command.bcc}
    asked = [(kind, text) for kind, texts in lists.items() for text in texts]
    found: list[Addressee] = []
    seen: set[str] = set()
    for kind, text in asked[:MOST_RECIPIENTS]:
        addressee = _addressee(kind, text)
        if addressee.shown not in seen:
            found.append(addressee)
        seen.add(addressee.shown)
    return found


def write(command: SendEmail, *, default_sender: str, recipients: Sequence[Addressee]) -> Letter:
    """The letter that `command` asks for. Raises `Refused` when it cannot be written safely."""
    _require_recipients(command, recipients)
    _require_bodies(command)
    return Letter(
        sender=_named("sender", command.sender or default_sender),
        subject=addresses.require_safe("subject", command.subject),
        to=_visible(recipients, "to"),
        cc=_visible(recipients, "cc"),
        reply_to=_named("reply_to", command.reply_to) if command.reply_to else None,
        headers=_headers(command.headers),
        text=command.text,
        html=command.html,
        files=tuple(_file(attachment) for attachment in command.attachments),
    )


def _addressee(kind: RecipientKind, text: str) -> Addressee:
    try:
        return Addressee(kind, text, addresses.parse(text))
    except Refused as error:
        return Addressee(kind, text, None, str(error))


def _named(what: str, text: str) -> Mailbox:
    try:
        return addresses.parse(text)
    except Refused as error:
        raise Refused(f"{what}: {error}") from error


def _visible(recipients: Sequence[Addressee], kind: RecipientKind) -> tuple[Mailbox, ...]:
    return tuple(r.mailbox for r in recipients if r.kind == kind and r.mailbox)


def _require_recipients(command: SendEmail, recipients: Sequence[Addressee]) -> None:
    if len(command.to) + len(command.cc) + len(command.bcc) > MOST_RECIPIENTS:
        raise Refused(f"more than {MOST_RECIPIENTS} recipients")
    if not recipients:
        raise Refused("no recipient")


def _require_bodies(command: SendEmail) -> None:
    if command.text is None and command.html is None:
        raise Refused("neither text nor html")
    for name, body in (("text", command.text), ("html", command.html)):
        if body and "\x00" in body:
            raise Refused(f"{name} contains a NUL character")


def _headers(headers: dict[str, str]) -> tuple[tuple[str, str], ...]:
    if len(headers) > MOST_HEADERS:
        raise Refused(f"more than {MOST_HEADERS} headers")
    for name, value in headers.items():
        addresses.require_header(name, value)
    return tuple(headers.items())


def _file(attachment: Attachment) -> File:
    addresses.require_safe("attachment name", attachment.filename, longest=addresses.LONGEST_FILENAME)
    addresses.require_content_type(attachment.content_type)
    content_id = attachment.content_id
    if content_id is not None:
        content_id = _content_id(content_id)
    try:
        content = base64.b64decode(attachment.content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(f"attachment {attachment.filename}: content is not base64") from error
    return File(attachment.filename, attachment.content_type, content, content_id)


def _content_id(value: str) -> str:
    value = addresses.require_safe("content_id", value.removeprefix("<").removesuffix(">"), longest=200)
    if not value.isascii() or any(character in "<> " for character in value):
        raise Refused("content_id is not made of printable ASCII without <, > and space")
    return value
