"""Items of `email.send` become commands in the queues of email."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

import aiormq

from chassis.broker.topology import declare
from contracts.emails import SendEmail
from contracts.topology import EMAIL, TOPOLOGIES
from support.batch_stack import BatchProcessors, Caller
from support.bundled import messages_in
from support.waiting import until


async def _channel(caller: Caller) -> Any:
    connection = await aiormq.connect(caller.broker_url)
    return connection, await connection.channel()


async def _declare(caller: Caller, queue: str) -> None:
    connection, channel = await _channel(caller)
    await declare(channel, TOPOLOGIES[EMAIL])
    await channel.queue_purge(queue)
    await connection.close()


async def _take_all(caller: Caller, queue: str) -> list[str]:
    connection, channel = await _channel(caller)
    found: list[str] = []
    while messages := messages_in(await channel.basic_get(queue, no_ack=True)):
        found += [str(SendEmail.model_validate_json(message.body).email_id) for message in messages]
    await connection.close()
    return found


async def test_a_mail_merge_puts_one_command_per_item_into_the_mail_queue(
    house: BatchProcessors, caller: Caller
) -> None:
    await _declare(caller, "email.send")
    await house.start()
    mails = [{"to": [f"user{n}@example.org"], "subject": "hi", "text": "hello"} for n in range(5)]
    batch_id = await caller.submit("email.send", [*mails, {"to": []}])
    batch = await caller.reach(batch_id)
    assert (batch.counts.succeeded, batch.counts.failed) == (5, 1)
    assert batch.errors == {"invalid-item": 1}
    await until(caller.outbox_is_empty)
    results = await caller.results(batch_id, status="succeeded")
    sent = await _take_all(caller, "email.send")
    assert sorted(sent) == sorted(result.result["email_id"] for result in results)


async def test_the_mails_of_a_large_batch_do_not_wait_before_those_of_others(
    house: BatchProcessors, caller: Caller
) -> None:
    for queue in ("email.send", "email.bulk"):
        await _declare(caller, queue)
    await house.start()
    mails = [{"to": [f"user{n}@example.org"], "subject": "hi", "text": "hello"} for n in range(503)]
    batch_id = await caller.submit("email.send", [{**mails[0], "stream": "bulk"}, *mails[1:]])
    batch = await caller.reach(batch_id)
    assert batch.counts.succeeded == 503
    await until(caller.outbox_is_empty)
    assert len(await _take_all(caller, "email.send")) == 499
    masses = await _take_all(caller, "email.bulk")
    assert sorted(masses) == sorted(str(uuid5(UUID(str(batch_id)), str(n))) for n in (0, 500, 501, 502))
