"""What a caller may ask to be sent: the shape of a mail, checked before it is accepted."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

_MOST_RECIPIENTS = 50
_RESERVED = {"from", "to", "cc", "bcc", "subject", "date", "message-id", "reply-to", "sender", "mime-version"}


def one_line(value: str) -> str:
    """`value`, if it cannot end a header line: no separator of `str.splitlines`, no control character."""
    if len(value.splitlines()) > 1 or any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise ValueError("must be one line without control characters")
    if value.splitlines() and value.splitlines()[0] != value:
        raise ValueError("must not end with a line separator")
    return value


def address(value: str) -> str:
    """`value` as an address: bare, or `Name <address>`; its domain is not looked up."""
    one_line(value)
    try:
        validate_email(value, check_deliverability=False, test_environment=True, allow_display_name=True)
    except EmailNotValidError as error:
        raise ValueError(f"is not an e-mail address: {error}") from None
    return value


OneLine = Annotated[str, AfterValidator(one_line)]
Address = Annotated[str, Field(max_length=320), AfterValidator(address)]
Addresses = Annotated[list[Address], Field(max_length=_MOST_RECIPIENTS)]


class AttachmentInput(BaseModel):
    """A file: `content` is base64; with `content_id` it is shown inline."""

    model_config = ConfigDict(extra="forbid")
    filename: Annotated[OneLine, Field(min_length=1, max_length=255)]
    content: str
    content_type: Annotated[OneLine, Field(pattern=r"^[\w.+-]+/[\w.+-]+$")] = "application/octet-stream"
    content_id: Annotated[OneLine, Field(max_length=255)] | None = None

    @model_validator(mode="after")
    def _content_is_base64(self) -> AttachmentInput:
        try:
            base64.b64decode(self.content, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("content is not base64") from None
        return self


class EmailInput(BaseModel):
    """The body of `POST /v1/emails`."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    sender: Address | None = Field(default=None, alias="from")
    to: Addresses = Field(default_factory=list)
    cc: Addresses = Field(default_factory=list)
    bcc: Addresses = Field(default_factory=list)
    reply_to: Address | None = None
    subject: Annotated[OneLine, Field(max_length=998)] = ""
    text: str | None = None
    html: str | None = None
    headers: dict[str, OneLine] = Field(default_factory=dict, max_length=50)
    attachments: list[AttachmentInput] = Field(default_factory=list, max_length=20)
    tags: list[Annotated[str, Field(max_length=64)]] = Field(default_factory=list, max_length=10)
    metadata: dict[str, Any] = Field(default_factory=dict, max_length=50)
    send_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> EmailInput:
        count = len(self.to) + len(self.cc) + len(self.bcc)
        if not 1 <= count <= _MOST_RECIPIENTS:
            raise ValueError(f"to, cc and bcc together name 1 to {_MOST_RECIPIENTS} recipients")
        if self.text is None and self.html is None:
            raise ValueError("text, html or both are needed")
        for name in self.headers:
            if name.lower() in _RESERVED or not name.isascii() or not name.replace("-", "").isalnum():
                raise ValueError(f"the header {name!r} cannot be set here")
        if self.expires_at and self.send_at and self.expires_at <= self.send_at:
            raise ValueError("expires_at must be later than send_at")
        return self
