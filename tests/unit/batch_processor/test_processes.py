"""The process pool: computes elsewhere, and survives the death of its processes."""

from __future__ import annotations

import os

import pytest

from batch_processor import indicators
from batch_processor.errors import PoolBroken
from batch_processor.processes import Processes


async def test_a_function_runs_in_another_process() -> None:
    processes = Processes(1)
    try:
        assert await processes.compute(os.getpid) != os.getpid()
        assert await processes.compute(indicators.compute, [1.0, 2.0], ["sma:2"]) == {"sma:2": [None, 1.5]}
    finally:
        await processes.close()


async def test_a_process_that_dies_is_replaced_and_the_error_says_try_again() -> None:
    processes = Processes(1)
    try:
        with pytest.raises(PoolBroken) as caught:
            await processes.compute(os._exit, 3)
        assert caught.value.retryable
        assert await processes.compute(len, "abc") == 3
    finally:
        await processes.close()


async def test_closing_what_was_never_used_does_nothing() -> None:
    await Processes(1).close()
