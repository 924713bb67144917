"""The caller's own data is passed on and returned as it was written, byte for byte."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from contracts.batches import GetBatch, ListResults
from contracts.emails import Email, GetEmail
from contracts.json_texts import elements, members
from support.event_streams import events_of
from support.gateway_stack import House, RunningGateway

# Numbers that are the same to every parser, spaces, and letters written in more than one way.
EXACT = '{"a" : 1.10, "b":[1e5,-0.0, 10.00],"c":"\\u00e9\\/"}'
JSON = {"content-type": "application/json"}


async def payloads(house: House) -> list[str]:
    """Return the payloads of the next command to batch-processor, as they are written there."""
    [message] = await house.take("batch-processor.intake")
    items = members(message["_"]["body"].decode())["items"]
    return [members(item)["payload"] for item in elements(items)]


@pytest.mark.parametrize(
    ("path", "body", "count"),
    [
        ("/v1/tasks", f'{{"operation":"echo", "payload" : {EXACT} }}', 1),
        ("/v1/batches", f'{{"operation":"echo","items":[{EXACT}, {{"payload": {EXACT}}}]}}', 2),
        ("/process-data", f'{{"items":[ {EXACT} ]}}', 1),
        ("/process-batch", f'{{"batches":[{EXACT},\n{EXACT}]}}', 2),
        ("/enqueue-task", EXACT, 1),
    ],
)
async def test_payloads_are_accepted_as_they_are_written(
    house: House, listener: RunningGateway, path: str, body: str, count: int
) -> None:
    answer = await listener.api.post(path, content=body, headers=JSON)
    assert answer.status_code == 202, answer.text
    assert await payloads(house) == [EXACT] * count


async def test_compact_documents_are_accepted_as_they_are_written(
    house: House, listener: RunningGateway
) -> None:
    values: list[Any] = [{"a": 1.5, "b": "é"}, 1e16, [], None]
    body = orjson.dumps({"operation": "echo", "items": [*values, {"custom_id": "x", "payload": 2.5}]})
    assert (await listener.api.post("/v1/batches", content=body, headers=JSON)).status_code == 202
    assert await payloads(house) == [orjson.dumps(value).decode() for value in [*values, 2.5]]


async def test_a_large_document_is_accepted_as_it_is_written(house: House, listener: RunningGateway) -> None:
    body = f'{{"operation":"echo","items":[{",".join([EXACT] * 2500)}]}}'
    assert (await listener.api.post("/v1/batches", content=body, headers=JSON)).status_code == 202
    messages = await house.take("batch-processor.intake", 4)
    runs = [members(message["_"]["body"].decode()) for message in messages if "items" in message]
    written = [members(item)["payload"] for run in runs for item in elements(run["items"])]
    assert written == [EXACT] * 2500
    assert [json.loads(run["offset"]) for run in runs] == [0, 1000, 2000]


async def test_results_come_as_lines_as_they_are_written(house: House, listener: RunningGateway) -> None:
    written = EXACT.replace(", ", ",\n ")
    page = f'{{"data":[{{"result":{written}}}, {{"result":2}}],"next_cursor":null,"complete":true}}'
    line = f'{{"result":{written.replace(chr(10), " ")}}}'

    async def results(request: ListResults, _: Any) -> bytes:
        if request.lines:
            return f'{{"data":[\n{line},\n{{"result":2}}\n],"next_cursor":null,"complete":true}}'.encode()
        return page.encode()

    async def status(_: GetBatch, __: Any) -> bytes:
        return b'{"status":"completed"}'

    await house.double("batch-processor", {ListResults: results, GetBatch: status})
    made = await listener.api.post("/v1/batches", json={"operation": "echo", "items": [1]})
    path = f"/v1/batches/{made.json()['id']}/results"
    assert (await listener.api.get(path)).text == page + "\n"
    lines = (await listener.api.get(f"{path}?format=ndjson")).text.splitlines()
    assert lines == [line, '{"result":2}']


async def test_metadata_of_mails_are_accepted_as_they_are_written(
    house: House, listener: RunningGateway
) -> None:
    mail = f'{{"to":["ann@example.com"],"text":"Hi","metadata" : {EXACT} }}'
    plain, refused = '{"to":["bob@example.com"],"text":"Hi"}', '[{"metadata":1}]'
    assert (await listener.api.post("/v1/emails", content=mail, headers=JSON)).status_code == 202
    several = f'{{"mode":"permissive","emails":[{plain}, {refused},\n{mail}]}}'
    answer = await listener.api.post("/v1/emails/batch", content=several, headers=JSON)
    assert (answer.status_code, answer.json()["accepted"]) == (202, 2)
    messages = await house.take("email.send", 3)
    assert [message.get("metadata_text") for message in messages] == [EXACT, None, EXACT]


async def test_metadata_of_a_mail_come_back_as_email_keeps_them(
    house: House, listener: RunningGateway
) -> None:
    broken = EXACT.replace(" ", "\n")

    async def email(request: GetEmail, _: Any) -> Email:
        return Email(
            id=request.email_id,
            status="queued",
            sender="shop@example.com",
            subject="",
            metadata=json.loads(broken),
            metadata_text=broken,
            accepted_at=datetime.now(UTC),
            recipients=[],
        )

    await house.double("email", {GetEmail: email})
    mail = f'{{"to":["ann@example.com"],"text":"Hi","metadata":{broken}}}'
    location = (await listener.api.post("/v1/emails", content=mail, headers=JSON)).headers["location"]
    found = (await listener.api.get(location)).text
    assert members(found)["metadata"] == broken
    assert "metadata_text" not in members(found)
    # Line breaks of the caller would end an event in its middle.
    async with listener.api.stream("GET", f"{location}/events") as events:
        [(_, data)] = await events_of(events, 1)
    assert data["metadata"] == json.loads(broken)
