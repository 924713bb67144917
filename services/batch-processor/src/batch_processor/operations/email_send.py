"""`email.send`: sends one mail per item (a mail merge). The item is done when the mail is on its way."""

from __future__ import annotations

from uuid import uuid5

from batch_processor.operation import Context, Operation
from contracts import json_texts
from contracts.emails import SendEmail
from contracts.mail import MailItem
from contracts.message import Json
from contracts.scopes import Scope

# As many as one request may have. Further mails of a batch go to the bulk queue whatever their stream, so
# that no mail of another owner waits behind them.
MOST_BEFORE_OTHERS = 500


async def run(mail: MailItem, context: Context) -> Json:
    """Send the command for the mail and return the mail's id."""
    # The same id whenever the item runs, so that the mail service accepts the mail once.
    email_id = uuid5(context.batch_id, str(context.position))
    command = SendEmail.of(
        mail,
        email_id=email_id,
        owner_id=context.owner_id,
        # Taken from the batch, so that the command is the same on each run.
        accepted_at=context.accepted_at,
        metadata_text=json_texts.members(context.payload_text)["metadata"] if mail.metadata else None,
    )
    context.send(command, email_id, is_bulk=context.position >= MOST_BEFORE_OTHERS)
    return {"email_id": str(email_id)}


OPERATION = Operation(
    name="email.send",
    description="Sends one mail per item; the result names the mail, whose delivery is followed by its id.",
    payload=MailItem,
    run=run,
    required_scopes=frozenset({Scope.EMAILS_SEND}),
    chunk_size=100,
)
