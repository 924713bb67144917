"""What a caller may ask to be sent: the shape of a mail, checked before it is accepted."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gateway.http.strict_json import Instant

_MOST_RECIPIENTS = 50
# What email writes itself, or relays on the way do: it would refuse these after they were accepted here.
_RESERVED = {
    *("from", "to", "cc", "bcc", "subject", "date", "message-id", "reply-to", "sender", "mime-version"),
    *("received", "return-path", "dkim-signature"),
}
_RESERVED_PREFIXES = ("content-", "resent-", "arc-")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,76}")
_CONTENT_TYPE = r"^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,60}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,60}$"
# A line of a mail has at most 998 octets, its header's name included.
_LONGEST_VALUE = 900
# Every separator of str.splitlines(), and every other control character.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(value: str) -> str:
    """`value`, if it cannot end a header line: no separator of `str.splitlines`, no control character."""
    if _UNSAFE.search(value):
        raise ValueError("must be one line without control characters")
    return value


def address(value: str) -> str:
    """`value` as an address: bare, or `Name <address>`; its domain is not looked up."""
    one_line(value)
    try:
        validate_email(value.strip(), check_deliverability=False, allow_display_name=True)
    except EmailNotValidError as error:
        raise ValueError(f"is not an e-mail address: {error}") from None
    return value


def plain_type(value: str) -> str:
    """`value`, if a file can have this media type: parts that hold parts are made by email alone."""
    if value.lower().startswith(("multipart/", "message/")):
        raise ValueError("must be the type of a single part")
    return value


OneLine = Annotated[str, Field(max_length=_LONGEST_VALUE), AfterValidator(one_line)]
Address = Annotated[str, Field(max_length=320), AfterValidator(address)]
Addresses = Annotated[list[Address], Field(max_length=_MOST_RECIPIENTS)]


class AttachmentInput(BaseModel):
    """A file: `content` is base64; with `content_id` it is shown inline."""

    model_config = ConfigDict(extra="forbid")
    filename: Annotated[OneLine, Field(min_length=1, max_length=100)]
    content: str
    content_type: Annotated[str, Field(pattern=_CONTENT_TYPE), AfterValidator(plain_type)] = (
        "application/octet-stream"
    )
    content_id: Annotated[str, Field(pattern=r"^<?[!-;=?-~]{1,200}>?$")] | None = None

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
    subject: OneLine = ""
    text: str | None = None
    html: str | None = None
    headers: dict[str, OneLine] = Field(default_factory=dict, max_length=50)
    attachments: list[AttachmentInput] = Field(default_factory=list, max_length=20)
    tags: list[Annotated[str, Field(max_length=64)]] = Field(default_factory=list, max_length=10)
    metadata: dict[str, Any] = Field(default_factory=dict, max_length=50)
    send_at: Instant | None = None
    expires_at: Instant | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> EmailInput:
        count = len(self.to) + len(self.cc) + len(self.bcc)
        if not 1 <= count <= _MOST_RECIPIENTS:
            raise ValueError(f"to, cc and bcc together name 1 to {_MOST_RECIPIENTS} recipients")
        if self.text is None and self.html is None:
            raise ValueError("text, html or both are needed")
        for name in self.headers:
            if not _may_be_set(name):
                raise ValueError(f"the header {name!r} cannot be set here")
        if self.expires_at and self.send_at and self.expires_at <= self.send_at:
            raise ValueError("expires_at must be later than send_at")
        return self


def _may_be_set(name: str) -> bool:
    lower = name.lower()
    is_own = lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES)
    return _HEADER_NAME.fullmatch(name) is not None and not is_own
