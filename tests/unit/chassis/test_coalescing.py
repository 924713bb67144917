"""Requests that share a look-up, also one that is interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from chassis.broker.coalescing import Coalescer


async def test_a_look_up_that_is_interrupted_fails_its_callers_and_the_next_one_asks_again() -> None:
    asked: list[Sequence[str]] = []

    async def fetch(keys: Sequence[str]) -> Mapping[str, str | Exception]:
        asked.append(keys)
        if len(asked) == 1:
            raise asyncio.CancelledError
        return dict.fromkeys(keys, "found")

    coalescer = Coalescer[str]("test", fetch)
    with pytest.raises(RuntimeError, match="interrupted"):
        await coalescer.get("A", 5)
    assert await coalescer.get("A", 5) == "found"


async def test_cache_misses_that_are_close_in_time_share_one_message() -> None:
    calls: list[list[str]] = []

    async def fetch(keys: Sequence[str]) -> dict[str, str | Exception]:
        calls.append(list(keys))
        return {key: KeyError(key) if key == "bad" else key.lower() for key in keys}

    coalescer = Coalescer[str]("test", fetch)
    found = await asyncio.gather(
        *(coalescer.get(key, 5) for key in ["A", "B", "A", "bad"]), return_exceptions=True
    )
    assert found[:3] == ["a", "b", "a"]
    assert isinstance(found[3], KeyError)
    assert calls == [["A", "B", "bad"]]
