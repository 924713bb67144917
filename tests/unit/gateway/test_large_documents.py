"""Large JSON bodies: what is done with them once they are read does not hold up the event loop either."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import ModuleType
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from chassis.broker import envelope
from chassis.deadlines import Deadline
from chassis.errors import Unavailable
from contracts.mail import Mail
from contracts.scopes import Scope
from gateway.aliases import service as aliases
from gateway.aliases.inputs import BatchesInput, DataInput, MailInput
from gateway.batches import commands, task_service
from gateway.batches.inputs import BatchInput, TaskInput
from gateway.batches.service import BatchService
from gateway.batches.upload_inputs import UploadQuery
from gateway.emails import service as emails
from gateway.http.calls import Call
from gateway.http.principal import Principal
from gateway.http.replies import JSON, HttpReply
from gateway.schedules import service as schedules
from gateway.schedules.inputs import ScheduleInput

OWNER = Principal(7, "Ann", "member", "k", frozenset(Scope))
# As no program writes it, so that it must be parsed once more to find its parts.
VALUE = "[" + "[ ] ," * 1_000 + " 1]"

Step = Coroutine[Any, Any, object]


def call(document: str) -> Call:
    return Call(OWNER, Deadline.after(60), JSON, document=document.encode())


def task(*, unique_key: str | None = None) -> Step:
    acceptor = AsyncMock()
    acceptor.find_earlier.return_value = None
    service = task_service.TaskService(acceptor, AsyncMock(), AsyncMock(), Mock())
    body = TaskInput.model_validate({"operation": "echo", "payload": [[]] * 1_000, "unique_key": unique_key})
    return service.create(call('{"operation": "echo", "payload": ' + VALUE + "}"), body)


def open_batch() -> Step:
    service = BatchService(Mock(), AsyncMock(), Mock(), uploads=Mock(), open_uploads=AsyncMock(), hub=Mock())
    following = {"operation": "echo", "payload": [[]] * 1_000}
    body = BatchInput.model_validate({"operation": "echo", "items": [1], "on_finished": following})
    body.items.clear()
    document = '{"operation": "echo", "on_finished": {"operation": "echo", "payload": ' + VALUE + "}}"
    return service.create(call(document), UploadQuery(open=True), body)


def mail() -> Step:
    parcels = AsyncMock()
    parcels.send_ahead.side_effect = lambda given, _: (given, None)
    senders = AsyncMock()
    senders.refusals.return_value = {}
    other = AsyncMock()
    service = emails.EmailService(
        other, other, other, parcels, other, other, other, senders, message_id_domain="x.example"
    )
    fields = {"from": "a@x.example", "to": ["b@y.example"], "subject": "s", "text": "t"}
    body = Mail.model_validate({**fields, "metadata": {"a": [[]] * 1_000}})
    return service.send(call('{"metadata": {"a": ' + VALUE + "}}"), body)


def alias(method: str, body: object) -> Step:
    features = AsyncMock()
    features.send.return_value = HttpReply(b'{"id":"1"}')
    features.accept.return_value = HttpReply(b'{"id":"1"}')
    service = aliases.AliasService(features, features)
    step: Step = getattr(service, method)(call('{"a": ' + VALUE + "}"), body)
    return step


def schedule() -> Step:
    rpc = AsyncMock()
    rpc.call.side_effect = Unavailable("batch-processor is away")
    service = schedules.ScheduleService(rpc, AsyncMock(), Mock())
    template = {"operation": "echo", "payload": [[]] * 1_000}
    body = ScheduleInput.model_validate({"name": "s", "cron": "0 5 * * *", "template": template})
    document = '{"template": {"operation": "echo", "payload": ' + VALUE + "}}"
    return service.create(call(document), body)


@pytest.mark.parametrize(
    ("module", "function", "step"),
    [
        pytest.param(task_service, "member", task, id="the payload of a task"),
        pytest.param(commands, "of_task", task, id="the command of a task"),
        pytest.param(hashlib, "sha256", lambda: task(unique_key="a"), id="the hash of a unique task"),
        pytest.param(commands, "description", open_batch, id="what follows an open batch"),
        pytest.param(emails, "member", mail, id="the metadata of a mail"),
        pytest.param(envelope, "command", mail, id="the command of a mail"),
        pytest.param(
            aliases,
            "build",
            lambda: alias("process_batch", BatchesInput(batches=[[]] * 1_000)),
            id="the items of a short route",
        ),
        pytest.param(
            aliases,
            "build",
            lambda: alias("process_data", DataInput(items=[[]] * 1_000)),
            id="the items of another short route",
        ),
        pytest.param(
            aliases,
            "build",
            lambda: alias("send_email", MailInput(to=["b@y.example"], subject="s", body="t")),
            id="the mail of a short route",
        ),
        pytest.param(schedules, "members", schedule, id="the template of a schedule"),
    ],
)
async def test_a_thread_does_it(
    module: ModuleType, function: str, step: Callable[[], Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_loop: list[bool] = []
    original = getattr(module, function)

    def noting(*arguments: Any, **named: Any) -> object:
        on_loop.append(threading.current_thread() is threading.main_thread())
        return original(*arguments, **named)

    monkeypatch.setattr(module, function, noting)
    # Nobody answers the gateway's own question, which comes after what is examined here.
    with suppress(Unavailable):
        await step()
    assert on_loop
    assert not any(on_loop)


async def test_small_documents_are_not_worth_a_thread() -> None:
    assert await call("[1]").compute(threading.current_thread) is threading.main_thread()
    assert await call(VALUE).compute(threading.current_thread) is not threading.main_thread()
