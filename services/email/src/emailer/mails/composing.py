"""From a command to a letter and its recipients, checked by the description of a mail in `contracts.mail`."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import get_args
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import to_json

from chassis import validation
from contracts import addresses
from contracts.emails import SendEmail
from contracts.mail import MOST_RECIPIENTS, MOST_UPLOAD_BYTES, MailAttachment, MailContent, RecipientKind
from contracts.mail_headers import replace_unsafe
from contracts.parsed_addresses import ParsedAddress
from contracts.templates import TemplateUse
from emailer import plain_text
from emailer.errors import UnsendableMail
from emailer.mails.letters import File, FilledTemplate, Letter
from emailer.templates.wanted import Versions, Wanted

_MOST_SHOWN = 320


@dataclass(frozen=True, slots=True)
class Addressee:
    """An envelope recipient as requested; `refusal` says why nothing can be sent to it."""

    kind: RecipientKind
    asked: str
    parsed: ParsedAddress | None
    refusal: str | None = None

    @property
    def shown(self) -> str:
        """The address for the record: as parsed, or as requested if it could not be parsed."""
        return self.parsed.address if self.parsed else replace_unsafe(self.asked, most=_MOST_SHOWN)


def addressees(command: SendEmail) -> list[Addressee]:
    """Return the envelope recipients of `command`, each address once: to before cc, cc before bcc.

    If there are more than a mail may have, only some are kept for the record, and the mail is refused.
    """
    lists: dict[RecipientKind, list[str]] = {"to": command.to, "cc": command.cc, "bcc": command.bcc}
    asked = [(kind, text) for kind, texts in lists.items() for text in texts]
    found: dict[str, Addressee] = {}
    for kind, text in asked[:MOST_RECIPIENTS]:
        try:
            addressee = Addressee(kind, text, addresses.parse(text))
        except ValueError as error:
            addressee = Addressee(kind, text, None, str(error))
        found.setdefault(addressee.shown, addressee)
    return list(found.values())


def write(
    command: SendEmail,
    *,
    default_sender: str,
    recipients: Sequence[Addressee],
    uploads: Mapping[tuple[UUID, str], int] = MappingProxyType({}),
    versions: Versions = MappingProxyType({}),
) -> Letter:
    """Return the letter that `command` asks for. Raise `UnsendableMail` when it cannot be sent.

    `recipients` are its addressees; those with an invalid address fail by themselves and are left out here.
    `uploads` has the sizes of existing uploads, by id and owner, `versions` the version of its template.
    """
    if len(command.to) + len(command.cc) + len(command.bcc) > MOST_RECIPIENTS:
        raise UnsendableMail(f"the mail has more than {MOST_RECIPIENTS} recipients")
    fields = {name: getattr(command, name) for name in MailContent.model_fields}
    wrong = {recipient.asked for recipient in recipients if recipient.refusal}
    for kind in get_args(RecipientKind):
        fields[kind] = [text for text in fields[kind] if text not in wrong]
    fields["template"] = command.template.model_dump(exclude_none=True) if command.template else None
    fields["attachments"] = [attachment.model_dump(exclude_none=True) for attachment in command.attachments]
    try:
        content = MailContent.model_validate(fields, by_name=True)
    except ValidationError as error:
        raise UnsendableMail(validation.first(error)) from error
    _require_uploads(content.attachments, command.owner_id, uploads)
    text = content.text
    if text is None and content.html is not None and len(content.html) <= plain_text.LIGHT_CHARACTERS:
        # The text of a longer document is made when the mail is first sent, in a process of its own.
        text = plain_text.from_html(content.html)
    return Letter(
        sender=addresses.parse(content.sender or default_sender),
        subject=content.subject,
        to=_visible(recipients, "to"),
        cc=_visible(recipients, "cc"),
        reply_to=tuple(addresses.parse(address) for address in content.reply_to),
        headers=tuple(content.headers.items()),
        text=text,
        html=content.html,
        template=_filled(content.template, command.owner_id, versions) if content.template else None,
        files=tuple(
            File(
                attachment.filename,
                attachment.content_type,
                b"" if attachment.upload_id else base64.b64decode(attachment.content),
                attachment.content_id.strip("<>") if attachment.content_id else None,
                attachment.upload_id,
            )
            for attachment in content.attachments
        ),
    )


def _filled(used: TemplateUse, owner_id: str, versions: Versions) -> FilledTemplate:
    version = versions.get(Wanted(owner_id, used.name, used.version))
    if version is None:
        named = f"{used.name} version {used.version}" if used.version else used.name
        raise UnsendableMail(f"template: template-not-found: there is no template {named}")
    return FilledTemplate(used.name, version, to_json(used.data).decode())


def _require_uploads(
    attachments: Sequence[MailAttachment], owner_id: str, uploads: Mapping[tuple[UUID, str], int]
) -> None:
    total = 0
    for number, attachment in enumerate(attachments):
        if not attachment.upload_id:
            continue
        if (attachment.upload_id, owner_id) not in uploads:
            raise UnsendableMail(
                f"attachments.{number}.upload_id: there is no upload {attachment.upload_id}, or it expired"
            )
        total += uploads[attachment.upload_id, owner_id]
    if total > MOST_UPLOAD_BYTES:
        raise UnsendableMail(f"the attached uploads have {total} bytes, more than {MOST_UPLOAD_BYTES}")


def _visible(recipients: Sequence[Addressee], kind: RecipientKind) -> tuple[ParsedAddress, ...]:
    return tuple(r.parsed for r in recipients if r.kind == kind and r.parsed)
