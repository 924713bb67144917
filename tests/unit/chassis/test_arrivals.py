"""Messages that have arrived are handled in turns of their owners."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from chassis.broker.arrivals import Arrivals
from chassis.broker.incoming import Incoming
from contracts import headers as names


def incoming(name: str, owner_id: str | None) -> Incoming:
    headers = {} if owner_id is None else {names.TENANT: owner_id}
    return Incoming(cast(Any, None), 1, b"", "a.v1", name, headers)


async def test_owners_take_turns_and_the_messages_of_one_keep_their_order() -> None:
    arrivals = Arrivals()
    for number in range(4):
        arrivals.put_nowait(incoming(f"many-{number}", "many"))
    arrivals.put_nowait(incoming("few-0", "few"))
    arrivals.put_nowait(incoming("nobody-0", None))
    arrivals.put_nowait(incoming("few-1", "few"))
    assert arrivals.qsize() == 7
    found = [(await arrivals.get()).message_id for _ in range(7)]
    assert found == ["many-0", "few-0", "nobody-0", "many-1", "few-1", "many-2", "many-3"]
    assert arrivals.empty()
    with pytest.raises(asyncio.QueueEmpty):
        arrivals.get_nowait()


async def test_the_messages_that_wait_are_counted_by_owner() -> None:
    arrivals = Arrivals()
    assert arrivals.count_of("many") == 0
    for number in range(3):
        arrivals.put_nowait(incoming(f"many-{number}", "many"))
    arrivals.put_nowait(incoming("nobody-0", None))
    assert [arrivals.count_of(owner_id) for owner_id in ("many", "few", "")] == [3, 0, 1]
    arrivals.get_nowait()
    assert arrivals.count_of("many") == 2


async def test_who_waits_gets_the_first_message() -> None:
    arrivals = Arrivals()
    waiting = asyncio.create_task(arrivals.get())
    await asyncio.sleep(0)
    arrivals.put_nowait(incoming("one", "a"))
    assert (await waiting).message_id == "one"
