"""Short routes: the same checked functions as `/v1`, with shapes that are common in tutorials."""

from __future__ import annotations

from typing import Any

import orjson

from chassis.errors import InvalidInput
from contracts.mail import Mail
from gateway.aliases.inputs import BatchesInput, DataInput, MailInput
from gateway.batches.inputs import BatchInput, TaskInput
from gateway.batches.service import BatchService
from gateway.emails.service import EmailService
from gateway.http.calls import Call
from gateway.http.problems import build
from gateway.http.replies import HttpReply, document

MAIL_ACCEPTED = "Email accepted"
BATCH_STARTED = "Batch processing started"
DATA_STARTED = "Data processing started"
TASK_ENQUEUED = "Task enqueued"


class AliasService:
    """Forwards short requests to the services of the features."""

    def __init__(self, emails: EmailService, batches: BatchService) -> None:
        self._emails = emails
        self._batches = batches

    async def send_email(self, call: Call, body: MailInput) -> HttpReply:
        """Accept a mail with a plain text."""
        mail = await call.compute(lambda: build(Mail, to=body.to, subject=body.subject, text=body.body))
        return taken(MAIL_ACCEPTED, await self._emails.send(call, mail))

    async def process_batch(self, call: Call, body: BatchesInput) -> HttpReply:
        """Accept a batch of the operation `echo`."""
        try:
            batch = await call.compute(lambda: build(BatchInput, operation="echo", items=body.batches))
        except InvalidInput as error:
            # Its items have another name in this body.
            error.errors = [
                one.model_copy(update={"pointer": one.pointer.replace("/items", "/batches", 1)})
                for one in error.errors
            ]
            raise
        return taken(BATCH_STARTED, await self._batches.accept(call, batch, name="batches"))

    async def process_data(self, call: Call, body: DataInput) -> HttpReply:
        """Accept a batch of the operation `echo`."""
        batch = await call.compute(lambda: build(BatchInput, operation="echo", items=body.items))
        return taken(DATA_STARTED, await self._batches.accept(call, batch))

    async def enqueue_task(self, call: Call, body: Any) -> HttpReply:
        """Accept a task of the operation `echo`."""
        task = await call.compute(lambda: TaskInput(operation="echo", payload=body))
        return taken(TASK_ENQUEUED, await self._batches.tasks.accept(call, task, call.document, pointer=""))


def taken(message: str, reply: HttpReply) -> HttpReply:
    """Return the answer to accepted work in the shape of the short routes."""
    assert isinstance(reply.body, bytes)
    short = {"message": message, "id": orjson.loads(reply.body)["id"]}
    return HttpReply(document(short), reply.status, location=reply.location, is_repeat=reply.is_repeat)
