"""Running a chunk's items: outcomes, limits, retries, stopping."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from batch_processor.execution.chunks import ChunkRun
from batch_processor.execution.running_chunk import ItemFailure, StoredItem
from batch_processor.operation import Context, Operation, RetryPolicy
from batch_processor.operations.echo import OPERATION as ECHO
from chassis.errors import Conflict, Unavailable
from contracts.emails import SendEmail
from support.operation_world import OperationWorld


class Number(BaseModel):
    n: int


def items(*payloads: str) -> list[StoredItem]:
    return [StoredItem(position, payload) for position, payload in enumerate(payloads)]


def operation(run: Any, **changes: Any) -> Operation:
    return Operation(name="test", description="for tests", payload=Number, run=run, **changes)


async def double(payload: Number, _: Context) -> int:
    return payload.n * 2


async def executed(run: ChunkRun) -> ChunkRun:
    await run.execute()
    return run


async def test_each_item_gets_its_result(world: OperationWorld) -> None:
    run = ChunkRun(operation(double), items('{"n":1}', '{"n":2}'), attempt=1, context=world.context)
    outcomes = (await executed(run)).take()
    assert dict(zip(outcomes.positions, outcomes.results, strict=True)) == {0: "2", 1: "4"}
    assert run.unfinished == []
    assert len(run.take()) == 0


async def test_echo_gives_the_texts_back_unread(world: OperationWorld) -> None:
    payloads = ['{"a": 1.10}', "null", "123456789012345678901234567890"]
    run = await executed(ChunkRun(ECHO, items(*payloads), attempt=1, context=world.context))
    assert run.take().results == payloads


async def test_a_payload_that_does_not_fit_fails_and_names_the_field_but_not_the_value(
    world: OperationWorld,
) -> None:
    run = await executed(
        ChunkRun(operation(double), items('{"n":"secret"}'), attempt=1, context=world.context)
    )
    [failure] = run.take().failures
    assert failure.code == "invalid-item"
    assert failure.detail.startswith("n: ")
    assert "secret" not in failure.detail


@pytest.mark.parametrize(
    ("error", "code", "detail"),
    [
        (Conflict("already there"), "conflict", "already there"),
        (KeyError("x"), "operation-failed", "KeyError: 'x'"),
    ],
)
async def test_an_error_that_trying_again_cannot_help_is_final(
    world: OperationWorld, error: Exception, code: str, detail: str
) -> None:
    async def fail(_: Number, __: Context) -> None:
        raise error

    run = await executed(ChunkRun(operation(fail), items('{"n":1}'), attempt=1, context=world.context))
    assert run.take().failures == [ItemFailure(0, code, detail)]
    assert run.retries == []


async def test_a_retryable_error_waits_for_another_attempt_until_the_last(world: OperationWorld) -> None:
    async def fail(_: Number, __: Context) -> None:
        raise Unavailable("away")

    flaky = operation(fail, retry=RetryPolicy(max_attempts=2))
    first = await executed(ChunkRun(flaky, items('{"n":1}'), attempt=1, context=world.context))
    assert (first.unfinished, len(first.take())) == ([0], 0)
    last = await executed(ChunkRun(flaky, items('{"n":1}'), attempt=2, context=world.context))
    assert last.unfinished == []
    assert last.take().failures == [ItemFailure(0, "service-unavailable", "away")]


async def test_an_item_over_its_time_limit_times_out_alone(world: OperationWorld) -> None:
    async def hang_on_zero(payload: Number, _: Context) -> int:
        if payload.n == 0:
            await asyncio.Event().wait()
        return payload.n

    slow = operation(hang_on_zero, timeout_s=0.05, retry=RetryPolicy(max_attempts=1))
    run = await executed(ChunkRun(slow, items('{"n":0}', '{"n":1}'), attempt=1, context=world.context))
    outcomes = run.take()
    assert [failure.code for failure in outcomes.failures] == ["timeout"]
    assert outcomes.results == ["1"]


async def test_no_more_items_run_side_by_side_than_the_operation_allows(world: OperationWorld) -> None:
    most = running = 0

    async def count(payload: Number, _: Context) -> int:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return payload.n

    many = items(*['{"n":1}'] * 20)
    run = await executed(ChunkRun(operation(count, concurrency=3), many, attempt=1, context=world.context))
    assert (most, len(run.take())) == (3, 20)


async def test_a_stopped_run_keeps_what_has_ended_and_names_the_rest(world: OperationWorld) -> None:
    begun = asyncio.Event()

    async def hang_on_two(payload: Number, _: Context) -> int:
        if payload.n == 2:
            begun.set()
            await asyncio.Event().wait()
        return payload.n

    three = items('{"n":1}', '{"n":2}', '{"n":3}')
    run = ChunkRun(operation(hang_on_two, concurrency=1), three, attempt=1, context=world.context)
    executing = asyncio.create_task(run.execute())
    await begun.wait()
    executing.cancel()
    await asyncio.gather(executing, return_exceptions=True)
    assert run.take().positions == [0]
    assert run.unfinished == [1, 2]


async def test_a_run_that_begins_no_more_ends_with_what_is_at_work_and_names_the_rest(
    world: OperationWorld,
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def wait(payload: Number, _: Context) -> int:
        begun.set()
        await go.wait()
        return payload.n

    many = items(*(f'{{"n":{n}}}' for n in range(5)))
    run = ChunkRun(operation(wait, concurrency=2), many, attempt=1, context=world.context)
    executing = asyncio.create_task(run.execute())
    await begun.wait()
    await asyncio.sleep(0)
    run.stop_beginning()
    assert run.not_begun == [2, 3, 4]
    run.let_go(run.not_begun)
    assert run.unfinished == [0, 1]
    go.set()
    await executing
    assert (run.take().positions, run.unfinished) == ([0, 1], [])


async def test_commands_of_an_item_that_failed_are_not_sent(world: OperationWorld) -> None:
    async def send_then_fail(payload: Number, context: Context) -> int:
        command = SendEmail(email_id=context.batch_id, owner_id="ann", accepted_at=context.accepted_at)
        context.send(command, context.batch_id)
        if payload.n == 0:
            raise Conflict("no")
        return payload.n

    run = ChunkRun(operation(send_then_fail), items('{"n":0}', '{"n":1}'), attempt=1, context=world.context)
    assert len((await executed(run)).take().commands) == 1


async def test_a_nul_in_an_error_is_replaced(world: OperationWorld) -> None:
    async def fail(_: Number, __: Context) -> None:
        raise Conflict("a\x00b")

    run = await executed(ChunkRun(operation(fail), items('{"n":1}'), attempt=1, context=world.context))
    assert run.take().failures[0].detail == "a\ufffdb"


async def test_a_result_that_no_message_could_carry_fails_the_item(world: OperationWorld) -> None:
    async def inflate(payload: Number, _: Context) -> str:
        return "x" * payload.n

    run = ChunkRun(operation(inflate), items('{"n":300000}', '{"n":3}'), attempt=1, context=world.context)
    outcomes = (await executed(run)).take()
    assert [failure.code for failure in outcomes.failures] == ["result-too-large"]
    assert outcomes.results == ['"xxx"']


async def test_a_payload_that_is_too_large_for_a_result_fails_its_item_alone(world: OperationWorld) -> None:
    texts = '"%s"' % ("x" * 300_000), '"%s"' % ("ü" * 200_000), '"%s"' % ("ü" * 100_000), "3"
    outcomes = (await executed(ChunkRun(ECHO, items(*texts), attempt=1, context=world.context))).take()
    assert [failure.code for failure in outcomes.failures] == ["result-too-large"] * 2
    assert outcomes.results == list(texts[2:])
