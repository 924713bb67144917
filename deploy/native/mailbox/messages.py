"""Received messages in the shapes of Mailpit's API, and the store that keeps them within bounds."""

from __future__ import annotations

import secrets
import shlex
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from native.mailbox.reading import AttachedPart, ReadMail, decoded

Json = dict[str, Any]

MOST_MESSAGES = 5_000
MOST_BYTES = 256 * 1024 * 1024
MOST_WORDS = 20
_SNIPPET_LENGTH = 250
# Of an entry in the list: the rest is in the message itself.
_MOST_LISTED_PEOPLE = 100
_MOST_LISTED_CHARACTERS = 1_000


@dataclass(frozen=True)
class Received:
    """One message as it was received; `recipients` are those of the envelope, not of the headers."""

    raw: bytes
    sender: str
    recipients: tuple[str, ...]
    id: str = field(default_factory=lambda: secrets.token_hex(11))
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def summary(self) -> Json:
        """The list entry, as Mailpit's `MessageSummary`."""
        mail = ReadMail(self.raw)
        return _cut(self._heads(mail)) | {
            "Read": False,
            "Created": self.created.isoformat().replace("+00:00", "Z"),
            "Attachments": sum(not file.is_inline for file in mail.files()),
            "Snippet": " ".join(mail.text()[: 4 * _SNIPPET_LENGTH].split())[:_SNIPPET_LENGTH],
        }

    def detail(self) -> Json:
        """Return the whole message, as Mailpit's `Message`."""
        mail = ReadMail(self.raw)
        files = list(mail.files())
        unsubscribe = mail.header("List-Unsubscribe")
        return self._heads(mail) | {
            "Date": (mail.date() or self.created).isoformat().replace("+00:00", "Z"),
            "ReturnPath": _shown(self.sender),
            "Text": mail.text(),
            "HTML": mail.html(),
            "ListUnsubscribe": {
                "Header": unsubscribe,
                "HeaderPost": mail.header("List-Unsubscribe-Post"),
                "Links": [part.strip(" <>") for part in unsubscribe.split(",") if part.strip()],
                "Errors": "",
            },
            "Inline": [_attachment(file) for file in files if file.is_inline],
            "Attachments": [_attachment(file) for file in files if not file.is_inline],
        }

    def headers(self) -> dict[str, list[str]]:
        """Return every header with all its values."""
        return ReadMail(self.raw).headers()

    def file(self, number: int) -> AttachedPart | None:
        """Return the attachment or inline part with that number."""
        return next((file for file in ReadMail(self.raw).files() if file.number == number), None)

    def _heads(self, mail: ReadMail) -> Json:
        to, cc = _people(mail, "To"), _people(mail, "Cc")
        named = {person["Address"].lower() for person in (*to, *cc)}
        hidden = [address for address in map(_shown, self.recipients) if address.lower() not in named]
        senders = _people(mail, "From") or [{"Name": "", "Address": _shown(self.sender)}]
        return {
            "ID": self.id,
            "MessageID": mail.header("Message-ID").strip("<> "),
            "From": senders[0],
            "To": to,
            "Cc": cc,
            "Bcc": [{"Name": "", "Address": address} for address in hidden],
            "ReplyTo": _people(mail, "Reply-To"),
            "Subject": mail.header("Subject"),
            "Size": len(self.raw),
            "Tags": [],
            "Username": "",
        }


class Store:
    """The newest messages, bounded in number and in bytes."""

    def __init__(
        self,
        *,
        most: int = MOST_MESSAGES,
        most_bytes: int = MOST_BYTES,
        forgotten: Callable[[list[Received]], None] = lambda _: None,
    ) -> None:
        self._messages: OrderedDict[str, Received] = OrderedDict()
        self._bounds = (most, most_bytes)
        self._bytes = 0
        self._forgotten = forgotten

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Received]:
        """Return the messages, newest first."""
        return reversed(self._messages.values())

    def add(self, message: Received) -> None:
        """Add a message; remove the oldest ones to make room."""
        self._messages[message.id] = message
        self._bytes += len(message.raw)
        most, most_bytes = self._bounds
        while len(self._messages) > most or (self._bytes > most_bytes and len(self._messages) > 1):
            self.remove([next(iter(self._messages))])

    def get(self, identifier: str) -> Received | None:
        """Return one message; the identifier `latest` stands for the newest."""
        return next(iter(self), None) if identifier == "latest" else self._messages.get(identifier)

    def remove(self, identifiers: Iterable[str]) -> None:
        """Remove these messages; ignore unknown ones."""
        known = [self._messages.pop(one) for one in identifiers if one in self._messages]
        self._bytes -= sum(len(message.raw) for message in known)
        self._forgotten(known)

    def clear(self) -> None:
        """Remove all messages."""
        self.remove(list(self._messages))

    def search(self, query: str) -> list[Received]:
        """Return the messages that `matching` finds."""
        return matching(list(self), query)


def matching(messages: Iterable[Received], query: str) -> list[Received]:
    """Return those that match every word: `to:`, `from:`, `cc:`, `subject:`, `message-id:` or text.

    Raise `ValueError` when there are too many words.
    """
    try:
        words = [word.lower() for word in shlex.split(query)]
    except ValueError:  # an open quote: take the words as they are
        words = query.lower().replace('"', " ").split()
    if len(words) > MOST_WORDS:
        raise ValueError(f"a query has at most {MOST_WORDS} words")
    return [message for message in messages if all(_matches(message, word) for word in words)]


def _matches(message: Received, word: str) -> bool:
    bare = word.lstrip("-!")
    is_negated = (len(word) - len(bare)) % 2 == 1
    return _has(message, bare) != is_negated


def _has(message: Received, word: str) -> bool:
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


def _cut(heads: Json) -> Json:
    """Return the heads of a message with few people and short texts: a page lists a thousand of them."""

    def cut(found: Any) -> Any:
        if isinstance(found, str):
            return found[:_MOST_LISTED_CHARACTERS]
        if isinstance(found, dict):
            return {name: cut(value) for name, value in found.items()}
        return [cut(one) for one in found[:_MOST_LISTED_PEOPLE]] if isinstance(found, list) else found

    return {name: cut(value) for name, value in heads.items()}


def _addresses(people: list[dict[str, str]]) -> tuple[str, ...]:
    return tuple(f"{person['Name']} {person['Address']}" for person in people)


def _people(mail: ReadMail, header: str) -> list[dict[str, str]]:
    return [{"Name": name, "Address": address} for name, address in mail.people(header)]


def _shown(address: str) -> str:
    # The SMTP server passes undecodable octets as surrogates, which JSON cannot contain.
    return decoded(address.encode("utf-8", "surrogateescape"))


def _attachment(file: AttachedPart) -> Json:
    return {
        "PartID": str(file.number),
        "FileName": file.filename,
        "ContentType": file.content_type,
        "ContentID": file.content_id,
        "Size": len(file.content),
    }
