"""Intake of `SendEmail` commands: each becomes a letter with recipients, or the reason for sending none."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from pydantic_core import from_json, to_json

from contracts import json_values
from contracts.emails import EmailStatus, RecipientStatus, SendEmail
from contracts.mail_headers import replace_unsafe
from contracts.times import FURTHEST
from emailer.errors import UnsendableMail
from emailer.mails import composing, letters, states
from emailer.mails.composing import Addressee
from emailer.mails.letters import Letter
from emailer.templates.wanted import Versions, Wanted


@dataclass(frozen=True, slots=True)
class KnownParts:
    """Those uploads (sizes, by id and owner) and template versions named by mails that exist.

    `parcels` holds the bytes of attachments that were sent ahead of their mails, by id and owner.
    """

    uploads: Mapping[tuple[UUID, str], int] = field(default_factory=dict)
    parcels: Mapping[tuple[UUID, str], bytes] = field(default_factory=dict)
    versions: Versions = field(default_factory=dict)


_NOTHING = KnownParts()


@dataclass(frozen=True, slots=True)
class PreparedMail:
    """A command as it is stored. If `letter` is None nothing is sent, and `refusal` says why.

    `suppressed` maps the address of a suppressed recipient to the reason why nothing is sent to it.
    """

    command: SendEmail
    letter: Letter | None
    refusal: str | None
    addressees: tuple[Addressee, ...]
    due_at: datetime
    expires_at: datetime
    suppressed: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> EmailStatus:
        """The mail's initial status: queued, or failed or suppressed when it can be sent to nobody."""
        return states.summed_up([self.status_of(addressee) for addressee in self.addressees])

    @property
    def metadata_text(self) -> str:
        """The caller's metadata as JSON, exactly as written.

        Metadata that could not be returned unchanged is dropped (the mail is refused then).
        """
        metadata, text = self.command.metadata, self.command.metadata_text
        try:
            json_values.exact(metadata)
            if text is not None and from_json(text) == metadata:
                return text
        except ValueError:
            return "{}"
        return to_json(metadata).decode()

    @property
    def message_id(self) -> str | None:
        """The Message-ID of all copies; None when nothing is sent."""
        if self.letter is None:
            return None
        command = self.command
        return command.message_id or letters.message_id(command.email_id, domain=self.letter.sender.domain)

    def status_of(self, addressee: Addressee) -> RecipientStatus:
        """Return the recipient's initial status."""
        if self.refusal or addressee.refusal:
            return "failed"
        return "suppressed" if addressee.shown in self.suppressed else "queued"

    def refusal_of(self, addressee: Addressee) -> str | None:
        """Return the reason why nothing will be sent to this recipient, or None."""
        return self.refusal or addressee.refusal or self.suppressed.get(addressee.shown)


def accept_all(
    commands: Sequence[SendEmail], *, default_sender: str, expires_after_s: float, there: KnownParts
) -> list[PreparedMail]:
    """Return each of `commands` as it is stored; `there` holds the uploads and templates they name."""
    return [
        accept(command, default_sender=default_sender, expires_after_s=expires_after_s, there=there)
        for command in commands
    ]


def templates_of(commands: Iterable[SendEmail]) -> set[Wanted]:
    """Return the templates that `commands` name."""
    return {
        Wanted(command.owner_id, command.template.name, command.template.version)
        for command in commands
        if command.template
    }


def uploads_of(commands: Iterable[SendEmail]) -> set[tuple[UUID, str]]:
    """Return the uploads that `commands` name, each with the owner that names it."""
    return {
        (attachment.upload_id, command.owner_id)
        for command in commands
        for attachment in command.attachments
        if attachment.upload_id
    }


def parcels_of(commands: Iterable[SendEmail]) -> set[tuple[UUID, str]]:
    """Return the parcels that hold attachments of `commands`, each with its owner."""
    return {
        (attachment.part.parcel_id, command.owner_id)
        for command in commands
        for attachment in command.attachments
        if attachment.part
    }


def accept(
    command: SendEmail, *, default_sender: str, expires_after_s: float, there: KnownParts = _NOTHING
) -> PreparedMail:
    """Return `command` as it is stored; whatever the command contains, nothing is raised.

    A mail that was answered with 202 must not vanish into the parked messages: one that cannot be sent is
    stored as failed, with the reason as each recipient's only attempt, so that its owner can see it.
    """
    recipients = composing.addressees(command)
    due_at = max(command.accepted_at, command.send_at or command.accepted_at)
    letter = refusal = None
    try:
        if due_at - command.accepted_at > FURTHEST:
            raise UnsendableMail(f"send_at: must be at most {FURTHEST.days} days ahead")
        letter = composing.write(
            _unpacked(command, there.parcels),
            default_sender=default_sender,
            recipients=recipients,
            uploads=there.uploads,
            versions=there.versions,
        )
    except UnsendableMail as error:
        due_at = command.accepted_at
        refusal = replace_unsafe(f"not sent: {error}")
    return PreparedMail(
        command=command,
        letter=letter,
        refusal=refusal,
        addressees=tuple(recipients),
        due_at=due_at,
        expires_at=command.expires_at or due_at + timedelta(seconds=expires_after_s),
    )


def _unpacked(command: SendEmail, parcels: Mapping[tuple[UUID, str], bytes]) -> SendEmail:
    """Return `command` with the attachments sent ahead of it. Raise `UnsendableMail` when one is missing."""
    if not any(attachment.part for attachment in command.attachments):
        return command
    attachments = []
    for attachment in command.attachments:
        part = attachment.part
        if part is None:
            attachments.append(attachment)
            continue
        content = parcels.get((part.parcel_id, command.owner_id))
        if content is None or part.start + part.size > len(content):
            raise UnsendableMail(f"the content of the attachment {attachment.filename!r} is missing")
        text = base64.b64encode(content[part.start : part.start + part.size]).decode()
        attachments.append(attachment.model_copy(update={"content": text, "part": None}))
    return command.model_copy(update={"attachments": attachments})
