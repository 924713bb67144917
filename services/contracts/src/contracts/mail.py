"""The only definition of a mail: every interface that accepts mails, and the email service, validate with it.

Fields are named as in the public API; `from` is `sender` in Python. The times are separate (`Mail`), because
they are checked against the clock at the time of the request.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self, get_args
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from contracts.addresses import Address
from contracts.json_values import exact
from contracts.mail_headers import MOST_HEADERS, MOST_VALUE, one_line, sender_headers
from contracts.message import Json
from contracts.schema_rules import has_all, lacks_all, most_together
from contracts.templates import TemplateUse
from contracts.times import PlannedTime

MOST_RECIPIENTS = 50
MOST_REPLY_TO = 10
MOST_ATTACHMENTS = 20
# The limits of one upload, and of all uploads that a mail attaches.
MOST_UPLOAD_BYTES = 20 << 20
# Of an attachment within an item of a batch, in characters of base64: a calendar object, a small picture.
MOST_ITEM_CONTENT = 8_192
MOST_TAGS = 20
MOST_METADATA = 50
# A later time is considered a mistake.
_TYPE_NAME = "[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,60}"
# Parameters such as `method=REQUEST` of a calendar; the name of a file is a separate field.
_PARAMETER = "; ?[A-Za-z][A-Za-z-]{0,30}=[A-Za-z0-9!#$&^_.+-]{1,60}"
_CONTENT_TYPE = rf"^{_TYPE_NAME}/{_TYPE_NAME}(?:{_PARAMETER}){{0,5}}$"
_ATTACHED_MAIL = "message/rfc822"
_LONGEST_LINE = 998
# On both sides of the @ parts that are divided by single dots (RFC 5322).
_MESSAGE_ID = re.compile(
    r"(?=[^@]{1,120}@)[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*+"
    r"@(?=.{1,120}\Z)[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*+"
)


def _single_part(value: str) -> str:
    lower = value.lower()
    if lower.startswith(("multipart/", "message/")) and lower != _ATTACHED_MAIL:
        raise ValueError(f"must be the media type of a single part or {_ATTACHED_MAIL}")
    names = [parameter.partition("=")[0].strip() for parameter in lower.split(";")[1:]]
    if len(set(names)) < len(names) or {"name", "boundary"} & set(names):
        raise ValueError("must not repeat a parameter, or have the parameters name or boundary")
    return value


def _message_id(value: str) -> str:
    bare = value[1:-1] if value[:1] == "<" and value[-1:] == ">" else value
    if not _MESSAGE_ID.fullmatch(bare):
        raise ValueError("must be a Message-ID: <unique part@domain>, in ASCII without spaces")
    return f"<{bare}>"


def _base64(value: str) -> str:
    # Many programs wrap base64 at a fixed line length.
    joined = "".join(value.split())
    try:
        base64.b64decode(joined, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be base64") from None
    return joined


def require_mail(content: bytes) -> None:
    """Raise `ValueError` unless `content` is a mail that can be attached unencoded.

    RFC 2046 forbids encoding an attached mail, so every relay must accept its bytes.
    """
    if not content.isascii() or b"\0" in content:
        raise ValueError("an attached mail must be ASCII; send others as application/octet-stream")
    if any(len(line) > _LONGEST_LINE for line in content.splitlines()):
        raise ValueError(f"an attached mail must have lines of at most {_LONGEST_LINE} octets")


_Addresses = Annotated[list[Address], Field(max_length=MOST_RECIPIENTS)]
Recipients = Annotated[
    _Addresses,
    BeforeValidator(
        lambda value: [value] if isinstance(value, str) else value,
        json_schema_input_type=Address | _Addresses,
    ),
]
_Few = Annotated[list[Address], Field(max_length=MOST_REPLY_TO)]
ReplyTo = Annotated[
    _Few,
    BeforeValidator(
        lambda value: [] if value is None else [value] if isinstance(value, str) else value,
        json_schema_input_type=Address | _Few | None,
    ),
]
OneLine = Annotated[str, Field(max_length=MOST_VALUE), AfterValidator(one_line)]
Headers = Annotated[dict[str, OneLine], Field(max_length=MOST_HEADERS), AfterValidator(sender_headers)]
Subject = OneLine
Body = Annotated[str, AfterValidator(exact)]
Tag = Annotated[str, Field(max_length=64), AfterValidator(one_line)]
Metadata = Annotated[dict[str, Json], Field(max_length=MOST_METADATA), AfterValidator(exact)]
RecipientKind = Literal["to", "cc", "bcc"]
# Transactional mail responds to an action of a user, who waits for it; bulk mail does not.
Stream = Literal["transactional", "bulk"]
# Always with its angle brackets, which the caller may omit.
MessageId = Annotated[str, AfterValidator(_message_id)]


# Null does not stand for an absent field, and absent fields are not written.
_NOT_GIVEN: Any = Field(default_factory=lambda: None, exclude_if=lambda value: value is None)


_CONTENT = "In base64, within the limit of the request; larger files are uploaded and named by `upload_id`."


class MailAttachment(BaseModel):
    """A file: either its `content` in base64, or the `upload_id` of a file that was uploaded before.

    With `content_id` it is shown inline.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"oneOf": [{"required": ["content"]}, {"required": ["upload_id"]}]},
    )

    filename: Annotated[OneLine, Field(min_length=1, max_length=100)]
    content: Annotated[str, AfterValidator(_base64), Field(description=_CONTENT)] = _NOT_GIVEN
    upload_id: UUID = _NOT_GIVEN
    content_type: Annotated[str, Field(pattern=_CONTENT_TYPE), AfterValidator(_single_part)] = (
        "application/octet-stream"
    )
    content_id: Annotated[str, Field(pattern=r"^<?[!-;=?-~]{1,200}>?$")] | None = None

    @model_validator(mode="after")
    def _can_be_attached(self) -> Self:
        if (self.content is None) == (self.upload_id is None):
            raise ValueError("must have either content or upload_id")
        if self.content_type.lower() == _ATTACHED_MAIL:
            if self.content is None:
                raise ValueError(f"{_ATTACHED_MAIL} must be passed as content, not as an upload")
            require_mail(base64.b64decode(self.content))
        return self


class MailContent(BaseModel):
    """The text of a mail and its addresses. Addresses are bare or `Name <address>`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sender: Address | None = Field(default=None, alias="from")
    to: Recipients = Field(default_factory=list)
    cc: Recipients = Field(default_factory=list)
    bcc: Recipients = Field(default_factory=list)
    reply_to: ReplyTo = Field(default_factory=list)
    subject: Subject = ""
    message_id: MessageId | None = None
    text: Body | None = None
    html: Body | None = None
    template: TemplateUse | None = None
    headers: Headers = Field(default_factory=dict)
    attachments: list[MailAttachment] = Field(default_factory=list, max_length=MOST_ATTACHMENTS)
    tags: list[Tag] = Field(default_factory=list, max_length=MOST_TAGS)
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if not 1 <= len(self.to) + len(self.cc) + len(self.bcc) <= MOST_RECIPIENTS:
            raise ValueError(f"to, cc and bcc together must name 1 to {MOST_RECIPIENTS} recipients")
        if self.template is not None:
            if self.subject or self.text is not None or self.html is not None:
                raise ValueError("subject, text and html must not be combined with a template")
        elif self.text is None and self.html is None:
            raise ValueError("text, html or both must be given, or a template")
        return self


class Mail(MailContent):
    """A mail as a caller requests it: its content, when to send it, and when to give up.

    Bulk mail never delays transactional mail.
    """

    stream: Stream = "transactional"
    send_at: PlannedTime | None = None
    expires_at: PlannedTime | None = None

    @model_validator(mode="after")
    def _times_are_in_order(self) -> Self:
        if self.expires_at is None:
            return self
        if self.expires_at <= datetime.now(UTC):
            raise ValueError("expires_at must be in the future")
        if self.send_at is not None and self.expires_at <= self.send_at:
            raise ValueError("expires_at must be later than send_at")
        return self


_ITEM_CONTENT = (
    f"In base64, at most {MOST_ITEM_CONTENT} characters; upload larger files (`POST /v1/uploads`) and name "
    "them by `upload_id`."
)


class ItemAttachment(MailAttachment):
    """A file of a mail that is an item; items pass the message broker, so its `content` must be small."""

    # Only the schema, by which items are accepted, bounds it: what an earlier release accepted still runs.
    content: Annotated[
        str,
        AfterValidator(_base64),
        Field(description=_ITEM_CONTENT, json_schema_extra={"maxLength": MOST_ITEM_CONTENT}),
    ] = _NOT_GIVEN


_ITEM_RECIPIENTS = f"to, cc and bcc together must name 1 to {MOST_RECIPIENTS} recipients"
# Items are accepted by the schema alone, so it says what the validators above say, too.
_ITEM_RULES: list[Json] = [
    {
        "description": _ITEM_RECIPIENTS,
        "anyOf": [
            {"required": [name], "properties": {name: {"not": {"type": "array", "maxItems": 0}}}}
            for name in get_args(RecipientKind)
        ],
    },
    most_together(*get_args(RecipientKind), most=MOST_RECIPIENTS, description=_ITEM_RECIPIENTS),
    {
        "description": "text, html or both must be given, or a template",
        "not": lacks_all("text", "html", "template"),
    },
    {
        "description": "subject, text and html must not be combined with a template",
        "not": {
            **has_all("template"),
            "anyOf": [
                {"required": ["subject"], "properties": {"subject": {"minLength": 1}}},
                has_all("text"),
                has_all("html"),
            ],
        },
    },
]


class MailItem(Mail):
    """A mail that is an item of a batch, or a task."""

    model_config = ConfigDict(json_schema_extra={"allOf": _ITEM_RULES})

    attachments: list[ItemAttachment] = Field(default_factory=list, max_length=MOST_ATTACHMENTS)  # type: ignore[assignment]  # nobody adds another kind to a frozen mail
