"""Items that raise, return or do the worst that an operation can each fail alone; their neighbours go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest

from batch_processor.execution.chunks import ChunkRun
from batch_processor.execution.running_chunk import Outcomes, StoredItem
from batch_processor.operation import Context, Operation, RetryPolicy
from chassis.errors import Conflict, ServiceError
from contracts.batches import CancelBatch
from support.operation_world import OperationWorld

POISON = 2


class WithoutText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class WithDeepText(Exception):
    def __str__(self) -> str:
        return str(self)


class OddError(ServiceError):
    def __init__(self) -> None:
        super().__init__("x" * 100_000 + "\ud800\x00")
        self.code = "odd\ud800" * 100  # type: ignore[misc]
        self.retryable = None  # type: ignore[misc,assignment]


def items(count: int) -> list[StoredItem]:
    return [StoredItem(position, str(position)) for position in range(count)]


async def outcomes_of(world: OperationWorld, operation: Operation, *, count: int = 5) -> Outcomes:
    run = ChunkRun(operation, items(count), attempt=1, context=world.context)
    await run.execute()
    assert run.unfinished == []
    return run.take()


def poisoned(act: Callable[[Context], Any], **changes: Any) -> Operation:
    """Return an operation that calls `act` for one item and returns the payload of the others."""

    async def run(payload: int, context: Context) -> Any:
        if payload != POISON:
            return payload
        done = act(context)
        return await done if asyncio.iscoroutine(done) else done

    once = RetryPolicy(max_attempts=1)
    return Operation("poisoned", "for tests", payload=None, run=run, retry=once, **changes)


def raising(error: BaseException) -> Callable[[Context], Any]:
    def act(_: Context) -> Any:
        raise error

    return act


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad \ud800 name"),
        ValueError("a\x00b"),
        ValueError(10**10_000),
        ValueError("x" * 5_000_000),
        WithoutText(),
        WithDeepText(),
        OddError(),
        asyncio.CancelledError(),
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        MemoryError(),
        RecursionError(),
        BaseExceptionGroup("several", [SystemExit(), ValueError("\udfff")]),
        StopAsyncIteration(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_item_that_raises_anything_fails_alone_with_words_that_can_be_stored(
    world: OperationWorld, error: BaseException
) -> None:
    outcomes = await outcomes_of(world, poisoned(raising(error)))
    assert sorted(outcomes.positions) == [0, 1, 3, 4]
    [failure] = outcomes.failures
    assert failure.position == POISON
    assert failure.code
    assert len(failure.detail) <= 6_100
    for text in (failure.code, failure.detail):
        assert "\x00" not in text
        text.encode()


@pytest.mark.parametrize(
    ("result", "code"),
    [
        ({1, 2}, "bad-result"),
        (b"bytes", "bad-result"),
        (object(), "bad-result"),
        ("\ud800", "bad-result"),
        (2**64, "bad-result"),
        ({1: "a name that is no text"}, "bad-result"),
        ("x" * 300_000, "result-too-large"),
        (json.loads("[" * 65 + "1" + "]" * 65), "bad-result"),
    ],
)
async def test_a_result_that_cannot_be_stored_or_read_again_fails_its_item(
    world: OperationWorld, result: Any, code: str
) -> None:
    outcomes = await outcomes_of(world, poisoned(lambda _: result))
    assert [(failure.position, failure.code) for failure in outcomes.failures] == [(POISON, code)]
    assert len(outcomes.positions) == 4


async def test_a_result_that_contains_itself_fails_its_item(world: OperationWorld) -> None:
    endless: list[Any] = []
    endless.append(endless)
    outcomes = await outcomes_of(world, poisoned(lambda _: endless))
    assert [failure.code for failure in outcomes.failures] == ["bad-result"]


async def test_an_item_that_cancels_its_own_task_fails_alone(world: OperationWorld) -> None:
    def cancel_myself(_: Context) -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return 1

    outcomes = await outcomes_of(world, poisoned(cancel_myself, concurrency=1))
    assert [failure.position for failure in outcomes.failures] == [POISON]
    assert sorted(outcomes.positions) == [0, 1, 3, 4]


async def test_an_item_that_ignores_its_cancellation_frees_its_place_after_the_deadline(
    world: OperationWorld,
) -> None:
    end = asyncio.Event()

    async def deaf() -> None:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    outcomes = await outcomes_of(world, poisoned(lambda _: deaf(), concurrency=1, timeout_s=0.05))
    end.set()
    assert [(failure.position, failure.code) for failure in outcomes.failures] == [(POISON, "timeout")]
    assert sorted(outcomes.positions) == [0, 1, 3, 4]


async def test_a_command_that_cannot_be_written_fails_the_item_that_sent_it(world: OperationWorld) -> None:
    def send_surrogate(context: Context) -> None:
        command = CancelBatch(batch_id=UUID(int=1), owner_id="ann").model_copy(update={"owner_id": "\ud800"})
        context.send(command, UUID(int=2))

    outcomes = await outcomes_of(world, poisoned(send_surrogate))
    assert [failure.position for failure in outcomes.failures] == [POISON]
    assert outcomes.commands == []


def of_texts(run_texts: Callable[[Sequence[str]], Any]) -> Operation:
    async def run(_: Any, __: Context) -> None:
        raise AssertionError("texts are not read")

    return Operation("texts", "for tests", payload=None, run=run, run_texts=run_texts)


def without_last(texts: Sequence[str]) -> list[str]:
    return list(texts[:-1]) if str(POISON) in texts else list(texts)


def with_one_more(texts: Sequence[str]) -> list[str]:
    return [*texts, "1"] if str(POISON) in texts else list(texts)


def raising_texts(texts: Sequence[str]) -> list[str]:
    if str(POISON) in texts:
        raise SystemExit
    return list(texts)


def without_end(texts: Sequence[str]) -> Any:
    return iter(int, 1) if str(POISON) in texts else list(texts)


@pytest.mark.parametrize("run_texts", [without_last, with_one_more, raising_texts, without_end])
async def test_texts_that_raise_or_come_in_the_wrong_number_fail_only_the_item_to_blame(
    world: OperationWorld, run_texts: Callable[[Sequence[str]], Any]
) -> None:
    outcomes = await outcomes_of(world, of_texts(run_texts))
    assert [failure.position for failure in outcomes.failures] == [POISON]
    assert dict(zip(outcomes.positions, outcomes.results, strict=True)) == {0: "0", 1: "1", 3: "3", 4: "4"}


@pytest.mark.parametrize("result", [None, 7, b"1", "not JSON", "\ud800", "NaN", "[" * 65 + "1" + "]" * 65])
async def test_a_text_that_is_not_json_to_keep_fails_its_item(world: OperationWorld, result: Any) -> None:
    def replace(texts: Sequence[str]) -> list[Any]:
        return [result if text == str(POISON) else text for text in texts]

    outcomes = await outcomes_of(world, of_texts(replace))
    assert [(failure.position, failure.code) for failure in outcomes.failures] == [(POISON, "bad-result")]
    assert len(outcomes.positions) == 4


async def test_texts_that_fail_for_every_item_fail_every_item(world: OperationWorld) -> None:
    def refuse(_: Sequence[str]) -> list[str]:
        raise Conflict("no")

    outcomes = await outcomes_of(world, of_texts(refuse))
    assert [failure.code for failure in outcomes.failures] == ["conflict"] * 5


async def test_a_retryable_failure_of_the_last_attempt_is_final(world: OperationWorld) -> None:
    operation = poisoned(raising(TimeoutError("the operation's own")))
    outcomes = await outcomes_of(world, operation)
    assert [failure.code for failure in outcomes.failures] == ["timeout"]


@pytest.mark.parametrize(
    "changes", [{"concurrency": 0}, {"chunk_size": 0}, {"timeout_s": 0}, {"timeout_s": -1}]
)
def test_an_operation_with_limits_that_let_nothing_run_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        poisoned(raising(ValueError()), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_attempts": 0},
        {"max_attempts": 10**6},
        {"first_s": -1},
        {"factor": float("nan")},
        {"most_s": 1e300},
    ],
)
def test_a_retry_policy_without_end_or_time_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        RetryPolicy(**changes)


def test_the_thousandth_attempt_has_a_delay() -> None:
    assert RetryPolicy(max_attempts=1000, factor=1e5).delay_s(999) == 300
