"""The commands of batches and tasks: payloads are found without parsing, as their callers wrote them."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from batch_processor.intake.changes import opening, runs_of
from chassis.broker.envelope import Outgoing, new_id
from contracts.batches import AppendItems, CreateBatch
from contracts.scopes import Scope
from gateway.acceptance.repository import Acceptance
from gateway.batches import commands
from gateway.batches.inputs import BatchInput, TaskInput
from gateway.http.principal import Principal

OWNER = Principal(7, "Ann", "member", "key", frozenset({Scope.BATCHES_WRITE}))
TEXTS = ['{"price": 1.10, "items":[1]}', '",\\"payloads_at\\":[3]"', "[[], [ ]]", "1e5", "null"]


def acceptance(kind: str) -> Acceptance:
    return Acceptance(new_id(), "7", kind, "queued", "echo", datetime(2026, 11, 30, tzinfo=UTC))


def batch_of(items: str) -> list[Outgoing]:
    document = f'{{"operation": "echo", "metadata": {{"items": "[", "payloads_at": "["}}, "items": {items}}}'
    batch = BatchInput.model_validate_json(document)
    return commands.of_batch(acceptance("batch"), batch, OWNER, document=document.encode(), name="items")


def stored(message: CreateBatch, body: bytes) -> list[tuple[str | None, str]]:
    """Return the custom ids and the payloads that batch-processor stores of a command."""
    rows = [row for run in runs_of(opening(message, body)) for row in run.rows()]
    return [(name, payload) for _, _, name, payload, _ in rows]


@pytest.mark.parametrize("name", [None, 'a"b', "ä"])
def test_a_batch_is_read_without_its_payloads_and_has_them_as_they_were_written(name: str | None) -> None:
    named = "" if name is None else f'"custom_id": {orjson.dumps(name).decode()}, '
    first = f'{{{named}"payload": {TEXTS[0]}}}'
    (command,) = batch_of(f"[{', '.join([first, *TEXTS[1:]])}]")
    message = CreateBatch.read(command.body)
    assert (message.items, message.size) == (None, len(TEXTS))
    assert message.metadata == {"items": "[", "payloads_at": "["}
    assert stored(message, command.body) == [(name, TEXTS[0]), *((None, text) for text in TEXTS[1:])]


@pytest.mark.parametrize("text", TEXTS)
def test_a_task_is_read_without_its_payload_and_has_it_as_it_was_written(text: str) -> None:
    task = TaskInput.model_validate_json(f'{{"operation": "echo", "payload": {text}}}')
    command = commands.of_task(acceptance("task"), task, OWNER, document=b"{}", payload=text.encode())
    message = CreateBatch.read(command.body)
    assert (message.kind, message.items, message.size) == ("task", None, 1)
    assert stored(message, command.body) == [(None, text)]


def test_the_parts_of_a_larger_batch_are_read_without_their_payloads() -> None:
    *runs, _ = batch_of(f"[{', '.join(map(str, range(2500)))}]")
    messages = [AppendItems.read(run.body) for run in runs]
    assert [(one.offset, one.items, len(one.payloads_at or ())) for one in messages] == [
        (0, [], 2000),
        (1000, [], 2000),
        (2000, [], 1000),
    ]


def test_a_batch_of_the_release_before_is_read_with_its_items() -> None:
    (command,) = batch_of("[1, 2]")
    body = orjson.dumps({**orjson.loads(command.body), "payloads_at": None})
    message = CreateBatch.read(body)
    assert (len(message.items or ()), message.size) == (2, 2)
    assert stored(message, body) == [(None, "1"), (None, "2")]
