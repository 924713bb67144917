"""The number of uploads at a time, and the order in which their items are checked."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from chassis.errors import Overloaded, TooManyAtOnce
from gateway.batches.upload_turns import MOST_AT_ONCE, MOST_OF_AN_OWNER, UploadTurns


def test_an_owner_has_some_places_and_all_have_more() -> None:
    turns = UploadTurns()
    with ExitStack() as held:
        for _ in range(MOST_OF_AN_OWNER):
            held.enter_context(turns.room("ann"))
        with pytest.raises(TooManyAtOnce, match="10 NDJSON uploads"):
            held.enter_context(turns.room("ann"))
        for number in range(MOST_AT_ONCE - MOST_OF_AN_OWNER):
            held.enter_context(turns.room(f"owner {number}"))
        with pytest.raises(Overloaded, match="48 NDJSON uploads"):
            held.enter_context(turns.room("bob"))
    with turns.room("ann"), turns.room("bob"):
        pass


async def test_many_uploads_of_one_owner_have_no_more_turns_than_one_of_another() -> None:
    turns, taken = UploadTurns(), list[str]()

    async def upload(owner_id: str) -> None:
        for _ in range(5):
            async with turns.turn(owner_id):
                taken.append(owner_id)
                await asyncio.sleep(0)

    await asyncio.gather(*(upload("ann") for _ in range(10)), upload("bob"))
    last_of_bob = len(taken) - 1 - taken[::-1].index("bob")
    assert taken[: last_of_bob + 1].count("ann") <= 6
