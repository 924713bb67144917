"""Waiting for something to become true, with an end."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.1


async def until(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]],
    *,
    timeout_s: float = 20,
    what: Callable[[], str] = lambda: "the condition",
) -> Any:
    """Wait until `condition` returns something true and return it; fail after `timeout_s` seconds."""
    began = time.monotonic()
    while (waited_s := time.monotonic() - began) < timeout_s:
        value, pause_s = condition(), _PAUSE_S
        if inspect.isawaitable(value):
            value = await value
            # Such a question takes the processor from what is waited for: the longer this takes, the fewer.
            pause_s = min(max(_PAUSE_S, waited_s / 10), _LONGEST_PAUSE_S)
        if value:
            return value
        await asyncio.sleep(pause_s)
    raise AssertionError(f"not true after {timeout_s} s: {what()}")
