"""An operation whose items fail in the way that their payload names."""

from __future__ import annotations

import asyncio
import sys

from batch_processor.operation import Context, Operation, RetryPolicy
from contracts.message import Json

FAULTY = "faulty"
WAYS = ("cancel", "exit", "unprintable", "surrogates", "deaf", "huge", "deep", "no JSON", "hang")
_TIMEOUT_S = 0.5


class _Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


async def _run(way: Json, _: Context) -> Json:
    if way == "cancel":
        raise asyncio.CancelledError
    if way == "exit":
        sys.exit("the item wants to end the process")
    if way == "unprintable":
        raise _Unprintable
    if way == "surrogates":
        raise ValueError("\ud800\0")
    if way in ("deaf", "hang"):
        await _hang(is_deaf=way == "deaf")
    return _result(str(way))


async def _hang(*, is_deaf: bool) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        if not is_deaf:
            raise
        # Does not hear that it was cancelled, for a while.
        await asyncio.sleep(3)


def _result(way: str) -> Json:
    if way == "huge":
        # Ten times what is kept.
        return "x" * (10 * 256 * 1024)
    if way == "no JSON":
        return float("nan")
    result: Json = way
    for _ in range(640 if way == "deep" else 0):
        result = [result]
    return result


OPERATION = Operation(
    name=FAULTY,
    description="Goes wrong in the way that the payload names.",
    payload=None,
    run=_run,
    retry=RetryPolicy(max_attempts=2, first_s=0.2),
    timeout_s=_TIMEOUT_S,
)
