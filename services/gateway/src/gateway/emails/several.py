"""The mails of a request with several: each is read by itself, as strictly as a single one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, get_args

import orjson
from pydantic import TypeAdapter, ValidationError

from chassis.errors import InvalidInput
from chassis.problems import field_errors
from chassis.validation import errors_in
from contracts import addresses
from contracts.addresses import MOST_FOREIGN_DOMAINS
from contracts.json_texts import elements, members
from contracts.mail import MOST_RECIPIENTS, Mail, RecipientKind
from contracts.message import Next
from contracts.schema_rules import count_together
from gateway.acceptance.repository import Acceptance
from gateway.domains.senders import domains_of
from gateway.emails import accepted_mail
from gateway.emails.inputs import EmailResult, EmailsInput

_MAIL: TypeAdapter[Mail] = TypeAdapter(Mail)
_WITH_ADDRESSES = ("from", "to", "cc", "bcc", "reply_to")


def read(index: int, given: Any) -> Mail | EmailResult:
    """Return one of several mails, validated as strictly as a single one, or the reason for its refusal."""
    try:
        return _MAIL.validate_json(orjson.dumps(given), strict=True)
    except ValidationError as error:
        wrong = errors_in(error)
        for each in wrong:
            each["loc"] = ("emails", index, *each["loc"])
        return EmailResult(index=index, status="refused", errors=field_errors(wrong))


def read_all(given: Sequence[Any]) -> tuple[list[Mail | EmailResult], dict[str, str]]:
    """Return each of several mails as `read` does, and the domains of their senders by sender.

    Raise `InvalidInput` for so many domains beyond ASCII that checking them would take long.
    """
    documents = [mail for mail in given if isinstance(mail, dict)]
    values = [document.get(name) for document in documents for name in _WITH_ADDRESSES]
    texts = chain.from_iterable(value if isinstance(value, list) else [value] for value in values)
    if len(addresses.foreign_domains(texts)) > MOST_FOREIGN_DOMAINS:
        raise InvalidInput(
            f"The mails of a request may have {MOST_FOREIGN_DOMAINS} different domains beyond ASCII together;"
            " send them in several requests."
        )
    found = [read(index, mail) for index, mail in enumerate(given)]
    return found, domains_of(mail.sender for mail in found if isinstance(mail, Mail))


def count_recipients(body: EmailsInput) -> int:
    """Return the number that a request counts as in limits: the recipients of all its mails.

    The mails are not validated yet: one without recipients counts as one, one with too many as the most.
    """
    documents: Sequence[Any] = body.emails
    return sum(_copies(mail) if isinstance(mail, dict) else 1 for mail in documents)


def _copies(mail: Mapping[str, Any]) -> int:
    return min(max(1, count_together(mail, get_args(RecipientKind))), MOST_RECIPIENTS)


def accepted(index: int, acceptance: Acceptance, *, message_id: str | None) -> EmailResult:
    """Return the outcome of a mail that is accepted."""
    following = Next(**accepted_mail.taken_over(since=acceptance.accepted_at))
    return EmailResult(index=index, status="queued", id=acceptance.id, message_id=message_id, next=following)


def metadata_texts(document: bytes, found: Sequence[Mail | EmailResult]) -> list[str | None]:
    """Return the metadata of each mail as written in `document`."""
    if not any(isinstance(mail, Mail) and mail.metadata for mail in found):
        return [None] * len(found)
    written = elements(members(document.decode())["emails"])
    return [
        members(text).get("metadata") if isinstance(mail, Mail) else None
        for text, mail in zip(written, found, strict=True)
    ]
