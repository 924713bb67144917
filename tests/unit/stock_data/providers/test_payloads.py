"""Answers of upstreams, read and judged."""

from __future__ import annotations

import threading
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, TypeAdapter, ValidationError

from stock_data.errors import BadData
from stock_data.providers import alpaca_payloads, payloads


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


NOTHING = b",".join([b"0"] * 200_000)


@pytest.mark.parametrize(
    ("adapter", "body"),
    [
        (alpaca_payloads.BARS, b'{"symbol":"AAPL","bars":[%s]}' % NOTHING),
        (alpaca_payloads.ACTIONS, b'{"corporate_actions":{"forward_splits":[%s]}}' % NOTHING),
        (alpaca_payloads.ACTIONS, b'{"corporate_actions":{"reverse_splits":[%s]}}' % NOTHING),
        (alpaca_payloads.SNAPSHOTS, b"{%s}" % b",".join(b'"%d":0' % number for number in range(200_000))),
    ],
    ids=["bars", "splits", "reverse splits", "snapshots"],
)
def test_more_malformed_elements_than_were_asked_for_are_refused_without_an_error_for_each(
    adapter: TypeAdapter[Any], body: bytes
) -> None:
    with pytest.raises(BadData) as caught:
        payloads.parse(adapter, body)
    assert isinstance(caught.value.__cause__, ValidationError)
    # With an error for each it takes 10 s and 200 MB.
    assert caught.value.__cause__.error_count() == 1
