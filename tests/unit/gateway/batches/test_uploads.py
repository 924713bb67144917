"""NDJSON uploads: however the bytes are split, the items are the same."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import InvalidInput, PayloadTooLarge
from contracts.batches import AppendItems
from gateway.batches import uploads
from gateway.batches.custom_ids import CustomIds, IdBudget
from gateway.batches.uploads import CHUNK_ITEMS, Cutter, Source
from gateway.errors import UploadStalled

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=10)
ITEMS = st.lists(
    st.builds(lambda payload: {"payload": payload}, st.integers(-(2**53), 2**53) | TEXT | st.none()),
    min_size=1,
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\n\n", b" \n"])


def new_cutter() -> Cutter:
    return Cutter(CustomIds(IdBudget(), "ann"))


def line(number: int) -> bytes:
    return b'{"custom_id":"%d","payload":%d}\n' % (number, number)


def cut_all(cutter: Cutter, *parts: bytes) -> list[list[bytes]]:
    runs = [run for part in parts for run in cutter.feed(part)]
    last = cutter.finish()
    return [*runs, last] if last else runs


@given(ITEMS, ENDS, st.booleans(), st.data())
def test_any_split_of_the_bytes_gives_the_same_items(
    items: list[dict[str, Any]], end: bytes, is_ended: bool, data: st.DataObject
) -> None:
    body = end.join(orjson.dumps(item) for item in items) + (end if is_ended else b"")
    places = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    parts = [body[start:stop] for start, stop in zip([0, *places], [*places, len(body)], strict=True)]
    cutter = new_cutter()
    runs = cut_all(cutter, *parts)
    assert [orjson.loads(item) for run in runs for item in run] == items
    assert cutter.total == len(items)


def test_runs_have_500_items_and_the_last_has_the_rest() -> None:
    runs = cut_all(new_cutter(), b"".join(line(number) for number in range(1234)))
    assert [len(run) for run in runs] == [500, 500, 234]


def test_long_lines_make_shorter_runs() -> None:
    long = b'{"payload":"%s"}\n' % (b"x" * 100_000)
    runs = cut_all(new_cutter(), *[long] * 20)
    assert sum(len(run) for run in runs) == 20
    assert all(sum(map(len, run)) <= 512 * 1024 + 256 * 1024 for run in runs)


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        (b"{broken", "is not JSON"),
        (b'"text"', "must be an object"),
        (b"[]", "must be an object"),
        (b'{"no":"payload"}', "must be an object"),
        (b'{"payload":1,"more":2}', "must be an object"),
        (b'{"payload":NaN}', "is not JSON"),
        (b'{"payload":"\\ud800"}', "is not JSON"),
        (b'{"payload":"\xff"}', "is not JSON"),
        (b'{"payload":"a\\u0000"}', "U+0000"),
        (b'{"payload":' + b"[" * 100 + b"]" * 100 + b"}", "nested"),
        (b'{"custom_id":7,"payload":1}', "custom_id"),
        (b'{"custom_id":"","payload":1}', "custom_id"),
        (b'{"custom_id":"3","payload":1}', "repeats"),
    ],
)
@pytest.mark.parametrize("before", [0, 4, 4999])
def test_a_broken_line_is_named_by_its_number(broken: bytes, what: str, before: int) -> None:
    good = b"".join(line(number) for number in range(before))
    if "repeats" in what and before < 4:
        return
    with pytest.raises(InvalidInput, match=f"^Line {before + 1} ") as refused:
        cut_all(new_cutter(), good + broken + b"\n" + line(9999))
    assert what in refused.value.detail
    assert refused.value.errors[0].pointer == f"/{before}"


def test_empty_lines_count_as_lines_and_not_as_items() -> None:
    cutter = new_cutter()
    with pytest.raises(InvalidInput, match=r"^Line 4 "):
        cut_all(cutter, b'\n{"payload":1}\n\n{broken\n')


@pytest.mark.parametrize("nothing", [b"", b"\n", b" \n\r\n"])
def test_an_upload_of_nothing_is_refused(nothing: bytes) -> None:
    with pytest.raises(InvalidInput, match="no items"):
        cut_all(new_cutter(), nothing)


def test_an_upload_has_five_million_items_at_most() -> None:
    cutter = new_cutter()
    cutter.total = 4_999_999
    cutter.feed(line(1))
    with pytest.raises(PayloadTooLarge, match="5000000 items"):
        cutter.feed(line(2))


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_over_256_kib_is_too_large_before_it_ends(end: bytes) -> None:
    with pytest.raises(PayloadTooLarge, match="Line 2 "):
        cut_all(new_cutter(), line(1), b'{"payload":"' + b"x" * 300_000 + b'"}' + end)


async def test_others_have_their_turn_within_a_large_part() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def parts() -> AsyncIterator[bytes]:
        yield b"".join(line(number) for number in range(20_000))

    counting = asyncio.create_task(count())
    runs = [run async for run in uploads.cut(parts(), new_cutter())]
    counting.cancel()
    assert sum(map(len, runs)) == 20_000
    assert turns >= 40


def test_a_message_is_what_the_contract_says() -> None:
    outgoing = uploads.message(
        UUID(int=5), "7", 1000, [b'{"custom_id":"a","payload":[1]}', b'{"payload":null}']
    )
    append = AppendItems.model_validate_json(outgoing.body)
    assert (append.batch_id, append.owner_id, append.offset) == (UUID(int=5), "7", 1000)
    assert [(item.custom_id, item.payload) for item in append.items] == [("a", [1]), (None, None)]
    assert (outgoing.exchange, outgoing.routing_key) == ("commands", AppendItems.queue)


async def parts(*given: bytes) -> AsyncIterator[bytes]:
    for part in given:
        yield part


async def test_a_source_says_what_was_dealt_with_and_hashes_all_of_it() -> None:
    read: list[int] = []
    source = Source(parts(line(1), line(2)), read.append, hashlib.sha256())
    runs = [run async for run in uploads.cut(aiter(source), new_cutter())]
    assert [len(run) for run in runs] == [2]
    assert read == [len(line(1)), len(line(2))]
    assert source.digest.digest() == hashlib.sha256(line(1) + line(2)).digest()


async def test_bytes_that_are_not_handled_yet_do_not_count_as_read() -> None:
    read: list[int] = []
    full = b"".join(line(number) for number in range(CHUNK_ITEMS))
    runs = uploads.cut(aiter(Source(parts(full, line(0)), read.append, hashlib.sha256())), new_cutter())
    await anext(runs)
    assert read == []


async def test_an_upload_that_stalls_is_given_up() -> None:
    async def stalling() -> AsyncIterator[bytes]:
        yield line(1)
        await asyncio.Event().wait()

    source = Source(stalling(), lambda _: None, hashlib.sha256(), patience_s=0.01)
    with pytest.raises(UploadStalled):
        [run async for run in uploads.cut(aiter(source), new_cutter())]
