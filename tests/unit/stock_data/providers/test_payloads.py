"""Answers of upstreams, read and judged."""

from __future__ import annotations

import threading
from typing import Annotated

from pydantic import AfterValidator, TypeAdapter

from stock_data.providers import payloads


async def test_a_long_answer_is_read_in_a_thread_and_a_short_one_at_once() -> None:
    readers: list[int] = []

    def note(value: int) -> int:
        readers.append(threading.get_ident())
        return value

    adapter = TypeAdapter(list[Annotated[int, AfterValidator(note)]])
    here = threading.get_ident()
    assert await payloads.read(adapter, b"[1]") == [1]
    assert await payloads.read(adapter, b"[1" + b" " * 40_000 + b"]") == [1]
    assert [reader == here for reader in readers] == [True, False]
