"""Work is accepted with nothing but the gateway's own database, and reaches the broker in the end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from chassis.broker import envelope
from chassis.broker.envelope import Outgoing
from contracts import headers as names
from contracts.emails import EmailStatusChanged
from contracts.operations import Operation, OperationsAnnounced
from contracts.parked import ParkedChanged, ParkedState
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem
from support.waiting import until

MAIL = {"to": ["ann@example.com"], "subject": "Hello", "text": "How are you?"}
BATCH = {
    "operation": "echo",
    "items": [1, {"custom_id": "b", "payload": {"x": None}}],
    "options": {"priority": "high"},
}
TASK = {"operation": "echo", "payload": {"n": 1}, "delay_s": 60, "priority": 9}
BROKER = {"broker-publish", "broker-consume", "consumer-gateway.events"}
TRACE = "0af7651916cd43dd8448eb211c80319c"


async def count(listener: RunningGateway, table: str) -> int:
    return int(await listener.database.fetchval(f"SELECT count(*) FROM {table}"))


async def test_a_mail_is_accepted_and_becomes_a_command(listener: RunningGateway, house: House) -> None:
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "x-request-id": "order-17"}
    answer = await listener.api.post(
        "/v1/emails", json={**MAIL, "from": "Shop <shop@example.com>"}, headers=headers
    )
    assert answer.status_code == 202
    id_ = answer.json()["id"]
    identity = f"<{id_}@example.com>"
    follows = answer.json().pop("next")
    assert answer.json() == {"id": id_, "status": "queued", "message_id": identity, "next": follows}
    assert follows["what"] == "acceptance by the email service"
    assert answer.headers["location"] == f"/v1/emails/{id_}"
    assert answer.headers["x-request-id"] == "order-17"
    assert UUID(id_).version == 7
    [message] = await house.take("email.send")
    assert (message["email_id"], message["owner_id"], message["sender"]) == (
        id_,
        "1",
        "Shop <shop@example.com>",
    )
    assert message["message_id"] == identity
    assert (message["to"], message["subject"], message["text"]) == (MAIL["to"], MAIL["subject"], MAIL["text"])
    about = message["_"]
    assert (about["type"], about["id"]) == ("email.send.v1", id_)
    assert about["headers"][names.REQUEST_ID] == "order-17"
    assert about["headers"][names.TRACEPARENT].startswith(f"00-{TRACE}-")
    assert about["headers"][names.TENANT] == "1"
    assert about["headers"][names.ATTEMPT] == 1


async def test_the_answer_to_accepted_work_says_what_is_next_like_its_state(listener: RunningGateway) -> None:
    lines: dict[str, Any] = {
        "content": b'{"payload":1}\n',
        "headers": {"content-type": "application/x-ndjson"},
    }
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/emails", {"json": MAIL}),
        ("/v1/tasks", {"json": TASK}),
        ("/v1/batches", {"json": BATCH}),
        ("/v1/batches?operation=echo", lines),
        ("/v1/batches?open=true", {"json": {"operation": "echo"}}),
    ]
    for path, body in asked:
        answer = await listener.api.post(path, **body)
        assert answer.status_code == 202, answer.text
        seen = (await listener.api.get(answer.headers["location"])).json()
        assert answer.json()["next"] == seen["next"], path
        by = datetime.fromisoformat(seen["next"]["by"])
        assert by > datetime.fromisoformat(seen["accepted_at"])
    appended = await listener.api.put(f"{answer.headers['location']}/items?offset=0", **lines)
    assert appended.status_code == 200, appended.text
    sealed = (await listener.api.post(f"{answer.headers['location']}/seal")).json()
    assert (sealed["next"]["what"], sealed["next"]["by"] > seen["next"]["by"]) == (seen["next"]["what"], True)
    [mail] = (await listener.api.post("/v1/emails/batch", json={"emails": [MAIL]})).json()["results"]
    assert mail["next"] == (await listener.api.get(f"/v1/emails/{mail['id']}")).json()["next"]


async def test_the_message_id_is_returned_and_may_be_chosen(listener: RunningGateway, house: House) -> None:
    first = (await listener.api.post("/v1/emails", json=MAIL)).json()
    assert first["message_id"] == f"<{first['id']}@tickwire.example>"
    own = {**MAIL, "message_id": "order.17@example.com"}
    chosen = (await listener.api.post("/v1/emails", json=own)).json()
    assert chosen["message_id"] == "<order.17@example.com>"
    messages = await house.take("email.send", 2)
    assert [message["message_id"] for message in messages] == [first["message_id"], chosen["message_id"]]


async def test_batches_and_tasks_become_commands(listener: RunningGateway, house: House) -> None:
    batch = await listener.api.post("/v1/batches", json=BATCH)
    task = await listener.api.post("/v1/tasks", json=TASK)
    assert (batch.status_code, task.status_code) == (202, 202)
    assert task.headers["location"] == f"/v1/tasks/{task.json()['id']}"
    first, second = sorted(await house.take("batch-processor.intake", 2), key=lambda message: message["kind"])
    assert (first["batch_id"], first["kind"]) == (batch.json()["id"], "batch")
    assert first["options"] == {"priority": "high"}
    assert first["items"] == [{"payload": 1}, {"custom_id": "b", "payload": {"x": None}}]
    assert (second["batch_id"], second["kind"], second["priority"]) == (task.json()["id"], "task", 9)
    assert second["not_before"] > second["accepted_at"]


async def test_a_large_json_batch_leaves_in_runs_with_a_seal(listener: RunningGateway, house: House) -> None:
    wanted = {"operation": "echo", "items": list(range(2500))}
    batch_id = (await listener.api.post("/v1/batches", json=wanted)).json()["id"]
    found = await house.take("batch-processor.intake", 4)
    assert {message["batch_id"] for message in found} == {batch_id}
    runs = sorted((m for m in found if "items" in m), key=lambda message: message["offset"])
    assert [(run["offset"], len(run["items"])) for run in runs] == [(0, 1000), (1000, 1000), (2000, 500)]
    (seal,) = [message for message in found if "total" in message]
    assert (seal["total"], seal["operation"]) == (2500, "echo")


async def test_while_all_else_is_away_accepted_work_is_reported_as_queued(listener: RunningGateway) -> None:
    mail = (await listener.api.post("/v1/emails", json=MAIL)).json()["id"]
    batch = (await listener.api.post("/v1/batches", json=BATCH)).json()["id"]
    task = (await listener.api.post("/v1/tasks", json=TASK)).json()["id"]
    for path in (f"/v1/emails/{mail}", f"/v1/batches/{batch}", f"/v1/tasks/{task}"):
        answer = await listener.api.get(path)
        assert answer.status_code == 200
        assert (answer.json()["status"], answer.json()["detail_available"]) == ("queued", False)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/send-email", {"to": "ann@example.com", "subject": "s", "body": "b"}, "Email accepted"),
        (
            "/send-email",
            {"to": ["a@example.com", "b@example.com"], "subject": "s", "body": "b"},
            "Email accepted",
        ),
        ("/process-batch", {"batches": [[1, 2], {"a": 1}]}, "Batch processing started"),
        ("/process-data", {"items": [1]}, "Data processing started"),
        ("/enqueue-task", {"any": ["json"]}, "Task enqueued"),
        ("/enqueue-task", 7, "Task enqueued"),
    ],
)
async def test_the_short_routes_accept_the_same_work(
    listener: RunningGateway, path: str, body: Any, message: str
) -> None:
    answer = await listener.api.post(path, json=body)
    assert answer.status_code == 202
    assert answer.json()["message"] == message
    assert (await listener.api.get(answer.headers["location"])).json()["id"] == answer.json()["id"]


async def test_the_same_unique_key_is_the_same_task(listener: RunningGateway, house: House) -> None:
    tasks = await asyncio.gather(
        *(listener.api.post("/v1/tasks", json={**TASK, "unique_key": "nightly"}) for _ in range(12))
    )
    assert [task.status_code for task in tasks] == [202] * 12
    assert len({task.json()["id"] for task in tasks}) == 1
    assert sum("idempotent-replayed" not in task.headers for task in tasks) == 1
    await until(lambda: _is_empty(listener))
    assert len(await house.take("batch-processor.intake", 1)) == 1
    assert await house.depth("batch-processor.intake") == 0
    another = await listener.new_key("batches:write", "batches:read")
    async with listener.client(another) as client:
        other = await client.post("/v1/tasks", json={**TASK, "unique_key": "nightly"})
    assert other.json()["id"] != tasks[0].json()["id"]


async def test_a_unique_key_is_refused_to_a_task_that_runs_something_else(listener: RunningGateway) -> None:
    task = {**TASK, "unique_key": f"unique-{uuid4()}"}
    first = await listener.api.post("/v1/tasks", json=task)
    payload = await listener.api.post("/v1/tasks", json={**task, "payload": {"another": 1}})
    assert_problem(payload, 409, "unique-key-in-use")
    assert first.json()["id"] in payload.json()["detail"]
    # Neither is the idempotency key of a refused request used up.
    headers = {"Idempotency-Key": f'"{uuid4()}"'}
    keyed = await listener.api.post("/v1/tasks", json={**task, "payload": None}, headers=headers)
    assert_problem(keyed, 409, "unique-key-in-use")
    again = await listener.api.post("/v1/tasks", json=task, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


async def test_one_of_two_tasks_that_take_a_unique_key_at_once_is_refused(listener: RunningGateway) -> None:
    task = {**TASK, "unique_key": f"unique-{uuid4()}"}
    answers = await asyncio.gather(
        *(listener.api.post("/v1/tasks", json={**task, "payload": number}) for number in range(2))
    )
    assert sorted(answer.status_code for answer in answers) == [202, 409]


async def test_only_one_of_many_requests_with_idempotency_keys_of_their_own_gets_the_unique_key(
    listener: RunningGateway,
) -> None:
    task = {**TASK, "unique_key": f"unique-{uuid4()}"}
    keys = [f'"{uuid4()}"' for _ in range(8)]

    async def send(number: int, payload: int) -> Any:
        headers = {"Idempotency-Key": keys[number]}
        return await listener.api.post("/v1/tasks", json={**task, "payload": payload}, headers=headers)

    answers = await asyncio.gather(*(send(number, number) for number in range(8)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 7
    winner = next(number for number, answer in enumerate(answers) if answer.status_code == 202)
    # Nothing was recorded for the others: their keys are free for what is right.
    again = [await send(number, winner) for number in range(8)]
    assert {answer.json()["id"] for answer in again} == {answers[winner].json()["id"]}


async def test_without_the_broker_work_waits_in_the_outbox_and_leaves_when_it_is_back(house: House) -> None:
    host, port = house.broker_place
    gate = await house.gate(host, port)
    await gate.shut()
    await house.purge("email.send", "batch-processor.intake")
    listener = await house.open(rabbitmq_url=house.broker_url_by(gate), wait=False)
    await listener.ready(but=BROKER)
    answers = [await listener.api.post("/v1/emails", json=MAIL) for _ in range(3)]
    for path, body in (("/v1/batches", BATCH), ("/v1/tasks", TASK)):
        answers.append(await listener.api.post(path, json=body))
    assert {answer.status_code for answer in answers} == {202}
    assert await count(listener, "outbox") == 5
    assert (await listener.api.get(answers[0].headers["location"])).json()["status"] == "queued"
    assert (await listener.api.get("/healthz")).status_code == 503
    await gate.open()
    mails = await house.take("email.send", 3)
    assert {mail["email_id"] for mail in mails} == {answer.json()["id"] for answer in answers[:3]}
    await house.take("batch-processor.intake", 2)
    await until(lambda: _is_empty(listener))


async def test_a_full_outbox_is_503_with_retry_after(house: House) -> None:
    gate = await house.gate(*house.broker_place)
    await gate.shut()
    listener = await house.open(rabbitmq_url=house.broker_url_by(gate), wait=False)
    await listener.ready(but=BROKER)
    await listener.database.execute(
        "INSERT INTO outbox (message_id, exchange, routing_key, message_type, headers, body, due_at)"
        " SELECT gen_random_uuid(), 'commands', 'nowhere', 'x', '{}', '', now() + interval '1 h'"
        " FROM generate_series(1, 100000)"
    )

    async def refused() -> bool:
        return bool((await listener.api.post("/v1/emails", json=MAIL)).status_code == 503)

    await until(refused)
    before = await count(listener, "acceptances")
    for path, body in (("/v1/emails", MAIL), ("/v1/batches", BATCH), ("/v1/tasks", TASK)):
        answer = await listener.api.post(path, json=body, headers={"idempotency-key": path})
        assert_problem(answer, 503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
    assert await count(listener, "acceptances") == before
    assert (await listener.api.get("/v1/me")).status_code == 200
    await listener.database.execute("TRUNCATE outbox")
    await until(lambda: _accepted(listener))
    answer = await listener.api.post("/v1/emails", json=MAIL, headers={"idempotency-key": "/v1/emails"})
    assert (answer.status_code, answer.headers.get("idempotent-replayed")) == (202, None)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/emails", MAIL),
        ("/v1/batches", BATCH),
        ("/v1/tasks", TASK),
        ("/send-email", {"to": "ann@example.com", "subject": "s", "body": "b"}),
        ("/process-batch", {"batches": [1]}),
        ("/process-data", {"items": [1]}),
        ("/enqueue-task", 7),
    ],
)
async def test_a_database_that_takes_long_is_waited_for_as_long_as_the_caller_waits(
    listener: RunningGateway, path: str, body: Any
) -> None:
    headers = {"idempotency-key": f"late-{uuid4()}", "request-timeout": "0.5"}
    before = await count(listener, "acceptances")
    async with listener.database.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE acceptances IN SHARE MODE")
        # The table is locked until the answer has come.
        late = await listener.api.post(path, json=body, headers=headers)
        assert_problem(late, 504, "deadline-exceeded")
        assert int(late.headers["retry-after"]) >= 1
    first = await listener.api.post(path, json=body, headers=headers)
    again = await listener.api.post(path, json=body, headers=headers)
    # Whether the promise was made after all is what the key tells.
    assert first.status_code == 202
    assert (again.json()["id"], again.headers["idempotent-replayed"]) == (first.json()["id"], "true")
    assert await count(listener, "acceptances") == before + 1


async def test_work_with_an_invalid_time_is_refused(listener: RunningGateway) -> None:
    answer = await listener.api.post("/v1/emails", json=MAIL, headers={"request-timeout": "soon"})
    assert_problem(answer, 422, "invalid-input")


async def _is_empty(listener: RunningGateway) -> bool:
    return await count(listener, "outbox") == 0


async def _accepted(listener: RunningGateway) -> bool:
    return bool((await listener.api.post("/v1/emails", json=MAIL)).status_code == 202)


async def test_an_operation_not_announced_is_unknown(listener: RunningGateway, house: House) -> None:
    assert (
        await listener.api.post("/v1/batches", json={**BATCH, "operation": "anything"})
    ).status_code == 202
    shout = Operation(name="shout", description="in capitals", item_schema={"type": "string"})
    await house.publish([envelope.event(OperationsAnnounced(operations=[shout]))])

    async def announced() -> Any:
        return (await listener.api.get("/v1/operations")).json()["data"]

    assert await until(announced) == [
        {
            "name": "shout",
            "description": "in capitals",
            "item_schema": {"type": "string"},
            "required_scopes": [],
        }
    ]
    refused = await listener.api.post("/v1/tasks", json={**TASK, "operation": "whisper"})
    assert "shout" in assert_problem(refused, 422, "unknown-operation", "/operation")["detail"]
    shouted = {**TASK, "operation": "shout", "payload": "hello"}
    assert (await listener.api.post("/v1/tasks", json=shouted)).status_code == 202
    await listener.database.execute("DELETE FROM operations")


async def test_events_change_the_shown_state_of_accepted_work(listener: RunningGateway, house: House) -> None:
    ids = [(await listener.api.post("/v1/emails", json=MAIL)).json()["id"] for _ in range(2)]
    now = datetime.now(UTC)
    news = [
        EmailStatusChanged.model_validate(
            {"email_id": ids[0], "owner_id": "1", "status": status, "at": now + timedelta(seconds=after)}
        )
        for status, after in (("delivered", 2), ("sending", 1), ("deferred", 0))
    ]
    await house.publish([envelope.event(one) for one in news])

    async def is_delivered() -> bool:
        return bool((await listener.api.get(f"/v1/emails/{ids[0]}")).json()["status"] == "delivered")

    await until(is_delivered)
    assert (await listener.api.get(f"/v1/emails/{ids[1]}")).json()["status"] == "queued"


PATHS = {"email": "/v1/emails", "batch": "/v1/batches", "task": "/v1/tasks"}


@pytest.mark.parametrize(("kind", "body"), [("email", MAIL), ("batch", BATCH), ("task", TASK)])
async def test_work_whose_command_is_parked_is_reported_as_parked_until_a_decision(
    listener: RunningGateway, house: House, kind: str, body: Any
) -> None:
    ids = [(await listener.api.post(PATHS[kind], json=body)).json()["id"] for _ in range(2)]
    await house.publish([_parked("parked", ids, after=0, reason="permanent")])
    await until(lambda: _says(listener, kind, ids[0], "parked", "permanent"))
    await until(lambda: _says(listener, kind, ids[1], "parked", "permanent"))
    await house.publish([_parked("replayed", ids[:1], after=1), _parked("discarded", ids[1:], after=1)])
    await until(lambda: _says(listener, kind, ids[0], "queued", None))
    await until(lambda: _says(listener, kind, ids[1], "failed", "discarded"))


async def test_late_events_of_parked_work_change_nothing(listener: RunningGateway, house: House) -> None:
    mail, other, last = [(await listener.api.post("/v1/emails", json=MAIL)).json()["id"] for _ in range(3)]
    delivered = EmailStatusChanged(
        email_id=mail, owner_id="1", status="delivered", at=datetime.now(UTC) - timedelta(seconds=60)
    )
    for message in (
        _parked("parked", [mail, other], after=0, reason="permanent"),
        # By the clock of another machine: what was handled is not parked, whatever the time.
        envelope.event(delivered),
        _parked("replayed", [mail, other], after=2),
        _parked("parked", [mail, other], after=1, reason="permanent"),
        _parked("parked", [last], after=3, reason="undecodable"),
    ):
        await house.publish([message])
    await until(lambda: _says(listener, "email", last, "parked", "undecodable"))
    assert await _says(listener, "email", mail, "delivered", None)
    assert await _says(listener, "email", other, "queued", None)


def _parked(state: ParkedState, ids: list[str], *, after: float, reason: str | None = None) -> Outgoing:
    at = datetime.now(UTC) + timedelta(seconds=after)
    return envelope.event(
        ParkedChanged(state=state, message_ids=[UUID(id_) for id_ in ids], reason=reason, at=at)
    )


async def _says(listener: RunningGateway, kind: str, id_: str, status: str, reason: str | None) -> bool:
    answer = (await listener.api.get(f"{PATHS[kind]}/{id_}")).json()
    return (answer["status"], answer.get("reason")) == (status, reason)
