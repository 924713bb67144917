"""Received messages, read lazily and kept within bounds, in the shapes of Mailpit's API."""

from __future__ import annotations

import secrets
import shlex
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import default
from functools import cached_property
from typing import Any

Json = dict[str, Any]

MOST_MESSAGES = 5_000
MOST_BYTES = 256 * 1024 * 1024
_SNIPPET_LENGTH = 250


@dataclass(frozen=True)
class Received:
    """One message as it came in; `recipients` is the envelope, not the headers."""

    raw: bytes
    sender: str
    recipients: tuple[str, ...]
    id: str = field(default_factory=lambda: secrets.token_hex(11))
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def summary(self) -> Json:
        """The entry of the list, as Mailpit's `MessageSummary`."""
        mail = self.parsed()
        snippet = " ".join(_body(mail, "plain").split())
        return self._heads(mail) | {
            "Read": False,
            "Created": self.created.isoformat().replace("+00:00", "Z"),
            "Attachments": sum(1 for _ in mail.iter_attachments()),
            "Snippet": snippet[:_SNIPPET_LENGTH],
        }

    def detail(self) -> Json:
        """Return the whole message, as Mailpit's `Message`."""
        mail = self.parsed()
        return self._heads(mail) | {
            "Date": _date(mail, self.created),
            "ReturnPath": self.sender,
            "Text": _body(mail, "plain"),
            "HTML": _body(mail, "html"),
            "ListUnsubscribe": _unsubscribe(mail),
            "Inline": [],
            "Attachments": [_attachment(part, number) for number, part in enumerate(mail.iter_attachments())],
        }

    def headers(self) -> dict[str, list[str]]:
        """Return every header with all its values."""
        mail = self.parsed()
        return {name: [str(value) for value in mail.get_all(name, [])] for name in mail}

    def attachment(self, number: int) -> tuple[str, bytes] | None:
        """Return content type and content of one attachment."""
        for index, part in enumerate(self.parsed().iter_attachments()):
            if index == number and isinstance(part, EmailMessage):
                return part.get_content_type(), _content(part)
        return None

    def parsed(self) -> EmailMessage:
        """Return the message as an object; reading is left to whoever looks, not to the receiver."""
        return message_from_bytes(self.raw, _class=EmailMessage, policy=default)

    def _heads(self, mail: EmailMessage) -> Json:
        to, cc = _people(mail, "To"), _people(mail, "Cc")
        named = {person["Address"].lower() for person in (*to, *cc)}
        senders = _people(mail, "From") or [{"Name": "", "Address": self.sender}]
        return {
            "ID": self.id,
            "MessageID": str(mail.get("Message-ID", "")).strip("<> "),
            "From": senders[0],
            "To": to,
            "Cc": cc,
            "Bcc": [{"Name": "", "Address": a} for a in self.recipients if a.lower() not in named],
            "ReplyTo": _people(mail, "Reply-To"),
            "Subject": str(mail.get("Subject", "")),
            "Size": len(self.raw),
            "Tags": [],
            "Username": "",
        }


class Store:
    """The newest messages, bounded in number and in bytes."""

    def __init__(self, *, most: int = MOST_MESSAGES, most_bytes: int = MOST_BYTES) -> None:
        self._messages: OrderedDict[str, Received] = OrderedDict()
        self._bounds = (most, most_bytes)
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Received]:
        """Return the messages, newest first."""
        return reversed(self._messages.values())

    def add(self, message: Received) -> None:
        """Keep a message; the oldest ones make room."""
        self._messages[message.id] = message
        self._bytes += len(message.raw)
        most, most_bytes = self._bounds
        while len(self._messages) > most or (self._bytes > most_bytes and len(self._messages) > 1):
            self._bytes -= len(self._messages.popitem(last=False)[1].raw)

    def get(self, identifier: str) -> Received | None:
        """Return one message; `latest` is the newest."""
        return next(iter(self), None) if identifier == "latest" else self._messages.get(identifier)

    def remove(self, identifiers: Iterable[str]) -> None:
        """Forget these messages; unknown ones are ignored."""
        for identifier in identifiers:
            if message := self._messages.pop(identifier, None):
                self._bytes -= len(message.raw)

    def clear(self) -> None:
        """Forget everything."""
        self.remove(list(self._messages))

    def search(self, query: str) -> list[Received]:
        """Return what matches every word: `to:`, `from:`, `cc:`, `subject:`, `message-id:` or any text."""
        words = _words(query)
        return [message for message in self if all(_matches(message, word) for word in words)]


def _words(query: str) -> list[str]:
    try:
        return [word.lower() for word in shlex.split(query)]
    except ValueError:  # an open quote: take the words as they are
        return query.lower().replace('"', " ").split()


def _matches(message: Received, word: str) -> bool:
    if word.startswith(("-", "!")):
        return not _matches(message, word[1:])
    field_name, colon, wanted = word.partition(":")
    summary = message.summary
    texts = {
        "to": (*_addresses(summary["To"]), *message.recipients),
        "from": (*_addresses([summary["From"]]), message.sender),
        "cc": _addresses(summary["Cc"]),
        "subject": (summary["Subject"],),
        "message-id": (summary["MessageID"],),
    }
    if colon and field_name in texts:
        return any(wanted in text.lower() for text in texts[field_name])
    everything = (*texts["to"], *texts["from"], summary["Subject"], summary["Snippet"])
    return any(word in text.lower() for text in everything)


def _addresses(people: list[dict[str, str]]) -> tuple[str, ...]:
    return tuple(f"{person['Name']} {person['Address']}" for person in people)


def _people(mail: EmailMessage, header: str) -> list[dict[str, str]]:
    found: list[Address] = [a for value in mail.get_all(header, []) for a in getattr(value, "addresses", ())]
    return [{"Name": person.display_name, "Address": person.addr_spec} for person in found]


def _body(mail: EmailMessage, kind: str) -> str:
    part = mail.get_body((kind,))
    return _content(part).decode("utf-8", "replace") if isinstance(part, EmailMessage) else ""


def _content(part: EmailMessage) -> bytes:
    try:
        content = part.get_content()
    except (KeyError, LookupError):  # an unknown type or character set: the bytes as they are
        content = part.get_payload(decode=True)
    if isinstance(content, EmailMessage):
        return content.as_bytes()
    return content if isinstance(content, bytes) else str(content).encode("utf-8", "replace")


def _date(mail: EmailMessage, created: datetime) -> str:
    stamp = getattr(mail.get("Date"), "datetime", None) or created
    return str(stamp.isoformat()).replace("+00:00", "Z")


def _unsubscribe(mail: EmailMessage) -> Json:
    header = str(mail.get("List-Unsubscribe", ""))
    links = [part.strip(" <>") for part in header.split(",") if part.strip()]
    return {
        "Header": header,
        "HeaderPost": str(mail.get("List-Unsubscribe-Post", "")),
        "Links": links,
        "Errors": "",
    }


def _attachment(part: Any, number: int) -> Json:
    return {
        "PartID": str(number),
        "FileName": part.get_filename() or "",
        "ContentType": part.get_content_type(),
        "ContentID": str(part.get("Content-ID", "")).strip("<> "),
        "Size": len(_content(part)),
    }
