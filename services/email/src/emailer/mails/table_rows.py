"""Mails as rows of the service's tables, and rows as mails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic_core import from_json, to_json

from chassis.postgres import Row
from contracts.emails import Attempt as AttemptShown
from contracts.emails import Recipient
from contracts.mail_headers import replace_unsafe
from contracts.parsed_addresses import ParsedAddress
from emailer.mails import promises
from emailer.mails.domain_limits import DomainLimits
from emailer.mails.intake import PreparedMail
from emailer.mails.letters import File, FilledTemplate, Letter
from emailer.mails.stored_mail import AttemptRecord, StoredMail

_LONGEST_REPLY = 4000
# The key under which a letter is stored that only this release and later ones can send.
_NEWER = "letter"


def email_row(one: PreparedMail, traceparent: str | None, request_id: str | None) -> tuple[Any, ...]:
    """Return a row of `emails` (a `given_email`), with the trace of the request that brought the mail."""
    command, letter = one.command, one.letter
    names = ("sender", "to", "cc", "reply_to", "headers")
    parts: dict[str, Any] = {name: getattr(letter, name) for name in names} if letter else {}
    if letter and len(letter.reply_to) < 2:
        # In the form that the previous release writes and reads.
        parts["reply_to"] = letter.reply_to[0] if letter.reply_to else None
    template = letter.template if letter else None
    if letter and (letter.upload_ids or template):
        # The previous release must not send this mail: it would send empty files, or nothing at all.
        parts = {_NEWER: parts}
    return (
        command.email_id,
        command.owner_id,
        one.status,
        letter.sender.written if letter else replace_unsafe(command.sender or ""),
        replace_unsafe(command.subject),
        _json(parts),
        letter.text if letter else None,
        letter.html if letter else None,
        len(letter.files) if letter else 0,
        len(one.addressees),
        _json(command.tags),
        one.metadata_text,
        command.accepted_at,
        command.send_at,
        one.expires_at,
        traceparent,
        request_id,
        command.stream,
        one.message_id,
        template.name if template else None,
        template.version if template else None,
        template.data if template else None,
    )


def recipient_rows(accepted: Iterable[PreparedMail]) -> list[tuple[Any, ...]]:
    """Return the rows of `recipients`, each a `given_recipient`."""
    return [
        (
            one.command.email_id,
            position,
            addressee.kind,
            addressee.shown,
            one.status_of(addressee),
            None if one.refusal_of(addressee) else one.due_at,
            one.letter.size_bytes if one.letter else 0,
            one.expires_at,
            one.command.stream,
            one.command.owner_id,
            addressee.shown.rpartition("@")[2] or "?",
        )
        for one in accepted
        for position, addressee in enumerate(one.addressees)
    ]


def refusal_rows(accepted: Iterable[PreparedMail]) -> list[tuple[Any, ...]]:
    """Return the rows of `attempts` for recipients that are refused here, before any relay is asked."""
    return [
        (
            one.command.email_id,
            position,
            *attempt_row(AttemptRecord(one.command.accepted_at, "", one.status_of(addressee), None, refusal)),
        )
        for one in accepted
        for position, addressee in enumerate(one.addressees)
        if (refusal := one.refusal_of(addressee))
    ]


def file_rows(accepted: Iterable[PreparedMail]) -> list[tuple[Any, ...]]:
    """Return the rows of `attachments`."""
    return [
        (
            one.command.email_id,
            position,
            file.filename,
            file.content_type,
            file.content_id,
            file.content,
            file.upload_id,
        )
        for one in accepted
        if one.letter
        for position, file in enumerate(one.letter.files)
    ]


def attempt_row(attempt: AttemptRecord) -> tuple[Any, ...]:
    """Return the columns of `attempts` other than the key."""
    return attempt.at, attempt.host, attempt.outcome, attempt.code, attempt.text[:_LONGEST_REPLY], attempt.tls


def _json(value: object) -> str:
    return to_json(value, inf_nan_mode="null").decode()


def stored_mail(row: Row, files: Sequence[File]) -> StoredMail:
    """Return a row of `emails` as delivery needs it."""
    letter, flaw = None, ""
    try:
        letter = _letter(row, files)
    except Exception as error:
        # A mail that cannot be read must not block the others.
        flaw = repr(error)
    return StoredMail(
        id=row["id"],
        owner_id=row["owner_id"],
        letter=letter,
        accepted_at=row["accepted_at"],
        send_at=row["send_at"],
        expires_at=row["expires_at"],
        recipient_count=row["recipient_count"],
        traceparent=row["traceparent"],
        request_id=row["request_id"],
        flaw=flaw,
        message_id=row["message_id"],
    )


def _letter(row: Row, files: Sequence[File]) -> Letter:
    parts = from_json(row["letter"])
    parts = parts.get(_NEWER, parts)
    answers = parts["reply_to"] or []
    if isinstance(answers, dict):
        answers = [answers]
    return Letter(
        sender=ParsedAddress(**parts["sender"]),
        subject=row["subject"],
        to=tuple(ParsedAddress(**mailbox) for mailbox in parts["to"]),
        cc=tuple(ParsedAddress(**mailbox) for mailbox in parts["cc"]),
        reply_to=tuple(ParsedAddress(**mailbox) for mailbox in answers),
        headers=tuple((name, value) for name, value in parts["headers"]),
        text=row["text_body"],
        html=row["html_body"],
        files=tuple(files),
        template=None
        if row["template_data"] is None
        else FilledTemplate(row["template_name"], row["template_version"], row["template_data"]),
    )


def recipient(
    row: Row, attempts: list[AttemptShown], *, expires_at: datetime, limits: DomainLimits
) -> Recipient:
    """Return a row of `recipients` as its owner sees it."""
    return Recipient(
        address=row["address"],
        kind=row["kind"],
        status=row["status"],
        next_attempt_at=None if row["status"] == "sending" else row["due_at"],
        next=promises.of_recipient(
            row["status"],
            due_at=row["due_at"],
            tries=row["tries"],
            expires_at=expires_at,
            is_rated=limits.of(row["address"].rpartition("@")[2]).rate is not None,
        ),
        attempts=attempts,
    )
