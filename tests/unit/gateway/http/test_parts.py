"""Answers made of parts: those that came, those that failed, and errors that are no failure of a part."""

from __future__ import annotations

import asyncio

import pytest

from chassis.errors import Unavailable
from gateway.http.parts import gather


async def answer() -> int:
    await asyncio.sleep(0)
    return 1


async def fail(error: Exception) -> int:
    raise error


async def test_a_part_that_failed_is_named_and_the_others_come() -> None:
    away = Unavailable("away")
    came, failed = await gather({"a": answer(), "b": fail(away), "c": answer()})
    assert (came, failed) == ({"a": 1, "c": 1}, {"b": away})


async def test_a_bug_is_not_reported_as_a_missing_part() -> None:
    with pytest.raises(KeyError):
        await gather({"a": answer(), "b": fail(KeyError("x"))})
