"""`email.send`: sends one mail per item (a mail merge). The item is done when the mail is on its way."""

from __future__ import annotations

from uuid import uuid5

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from batch_processor.operation import Context, Operation
from contracts.emails import Attachment, SendEmail
from contracts.message import Json
from contracts.scopes import Scope


class Mail(BaseModel):
    """One mail, as `POST /v1/emails` takes it."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    sender: str | None = Field(default=None, alias="from", max_length=320)
    to: list[str] = Field(default_factory=list, max_length=50)
    cc: list[str] = Field(default_factory=list, max_length=50)
    bcc: list[str] = Field(default_factory=list, max_length=50)
    reply_to: str | None = Field(default=None, max_length=320)
    subject: str = Field(default="", max_length=998)
    text: str | None = None
    html: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    attachments: list[Attachment] = Field(default_factory=list, max_length=20)
    tags: list[str] = Field(default_factory=list, max_length=20)
    metadata: dict[str, Json] = Field(default_factory=dict)
    send_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_address_is_a_list(cls, value: Json) -> Json:
        if not isinstance(value, dict):
            return value
        single = {name: [value[name]] for name in ("to", "cc", "bcc") if isinstance(value.get(name), str)}
        return {**value, **single}

    @model_validator(mode="after")
    def _has_recipient_and_content(self) -> Mail:
        if not (self.to or self.cc or self.bcc):
            raise ValueError("to, cc or bcc must name a recipient")
        if self.text is None and self.html is None:
            raise ValueError("text or html must be given")
        return self


async def _send(mail: Mail, context: Context) -> Json:
    # The same id whenever the item runs: the mail service takes it once.
    email_id = uuid5(context.batch_id, str(context.position))
    command = SendEmail(
        email_id=email_id,
        owner_id=context.owner_id,
        # Taken from the batch, so that the command is the same on each run.
        accepted_at=context.accepted_at,
        **{name: getattr(mail, name) for name in Mail.model_fields},
    )
    context.send(command, email_id)
    return {"email_id": str(email_id)}


OPERATION = Operation(
    name="email.send",
    description="Sends one mail per item; the result names the mail, whose delivery is followed by its id.",
    payload=Mail,
    run=_send,
    required_scopes=frozenset({Scope.EMAILS_SEND}),
    chunk_size=100,
)
