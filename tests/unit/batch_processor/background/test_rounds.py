"""Background loops are woken, and handle together the wakes that come while they wait."""

from __future__ import annotations

import asyncio

from batch_processor.background import rounds


async def test_a_wake_ends_the_wait_and_is_used_up() -> None:
    wake = asyncio.Event()
    wake.set()
    await rounds.wait(wake, most_s=3600, least_s=0)
    assert not wake.is_set()


async def test_a_wake_during_the_minimum_wait_is_not_lost() -> None:
    wake = asyncio.Event()
    waiting = asyncio.create_task(rounds.wait(wake, most_s=3600, least_s=0.01))
    await asyncio.sleep(0)
    wake.set()
    await waiting
    assert not wake.is_set()


async def test_without_a_wake_the_wait_ends_by_itself() -> None:
    await rounds.wait(asyncio.Event(), most_s=0.01, least_s=0)
