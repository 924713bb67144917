"""Tasks end when they are cancelled, also when a cancellation is lost on the way."""

from __future__ import annotations

import asyncio

import pytest

from chassis import supervision
from chassis.supervision import Tasks


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "CANCEL_AGAIN_AFTER_S", 0.05)


async def deaf(cancellations: int) -> None:
    """Continue after the given number of cancellations, as a library does that swallows them."""
    for _ in range(cancellations):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    await asyncio.Event().wait()


async def test_tasks_are_closed_when_one_of_them_loses_a_cancellation() -> None:
    tasks = Tasks()
    tasks.supervise("deaf", lambda: deaf(2))
    tasks.start("other", deaf(0))
    await asyncio.sleep(0.01)
    async with asyncio.timeout(20):
        await tasks.close()
    assert {task.get_name() for task in asyncio.all_tasks()} & {"deaf", "other"} == set()


async def test_a_task_that_outlives_every_cancellation_is_named_and_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = asyncio.create_task(deaf(5), name="stubborn")
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await supervision.end([task])
    assert not task.done()
    assert "stubborn" in "".join(capsys.readouterr())
    task.cancel()
    await asyncio.wait([task])
