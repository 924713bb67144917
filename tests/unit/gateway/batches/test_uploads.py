"""NDJSON uploads: however the bytes are split, the items are the same."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import tracemalloc
from collections.abc import AsyncIterator
from itertools import count, islice
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import InvalidInput, PayloadTooLarge
from contracts.batches import AppendItems
from gateway.batches import cutting, lines, uploads
from gateway.batches.cutting import CHUNK_ITEMS, LINES_LOOKED_AT, Cutter, Run
from gateway.batches.payload_checks import PayloadCheck
from gateway.batches.upload_turns import UploadTurns
from gateway.batches.uploads import UploadParts
from gateway.errors import UploadStalled

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=10)
ITEMS = st.lists(
    st.builds(lambda payload: {"payload": payload}, st.integers(-(2**53), 2**53) | TEXT | st.none()),
    min_size=1,
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\n\n", b" \n"])


def line(number: int) -> bytes:
    return b'{"custom_id":"%d","payload":%d}\n' % (number, number)


def cut_all(cutter: Cutter, *parts: bytes) -> list[Run]:
    return [*(run for part in parts for run in cutter.feed(part)), *cutter.finish()]


@given(ITEMS, ENDS, st.booleans(), st.data())
def test_any_split_of_the_bytes_gives_the_same_items(
    items: list[dict[str, Any]], end: bytes, is_ended: bool, data: st.DataObject
) -> None:
    body = end.join(orjson.dumps(item) for item in items) + (end if is_ended else b"")
    places = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    parts = [body[start:stop] for start, stop in zip([0, *places], [*places, len(body)], strict=True)]
    cutter = Cutter()
    runs = cut_all(cutter, *parts)
    assert [orjson.loads(item) for run in runs for item in run.items] == items
    assert (cutter.total, cutter.end) == (len(items), len(body))


def test_runs_have_500_items_and_the_last_has_the_rest() -> None:
    runs = cut_all(Cutter(), b"".join(line(number) for number in range(1234)))
    assert [len(run.items) for run in runs] == [500, 500, 234]


def test_the_memory_of_an_upload_with_an_id_in_every_line_does_not_grow() -> None:
    cutter, numbers = Cutter(), count()
    cutter.feed(b"".join(map(line, islice(numbers, 1000))))
    tracemalloc.start()
    try:
        for _ in range(30):
            cutter.feed(b"".join(map(line, islice(numbers, 1000))))
        # What other threads hold, such as a watchdog that looks at this long test, does not count.
        of_batches = tracemalloc.Filter(True, "*/gateway/batches/*")
        snapshot = tracemalloc.take_snapshot().filter_traces([of_batches])
    finally:
        tracemalloc.stop()
    held = sum(statistic.size for statistic in snapshot.statistics("filename"))
    # The ids alone would be more than 3 MB.
    assert (cutter.total, held < 250_000) == (31_000, True)


def test_long_lines_make_shorter_runs() -> None:
    long = b'{"payload":"%s"}\n' % (b"x" * 100_000)
    runs = cut_all(Cutter(), *[long] * 20)
    assert sum(len(run.items) for run in runs) == 20
    assert all(sum(map(len, run.items)) <= 512 * 1024 + 256 * 1024 for run in runs)


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        (b"{broken", "is not JSON"),
        (b'"text"', "must be an object"),
        (b"[]", "must be an object"),
        (b'{"no":"payload"}', "must be an object"),
        (b'{"payload":1,"more":2}', "must be an object"),
        (b'{"payload":NaN}', "is not JSON"),
        (b'\x0c{"payload":1}', "is not JSON"),
        (b"\x0b", "is not JSON"),
        (b'{"payload":"\\ud800"}', "is not JSON"),
        (b'{"payload":"\xff"}', "is not JSON"),
        (b'{"payload":"a\\u0000"}', "U+0000"),
        (b'{"payload":' + b"[" * 100 + b"]" * 100 + b"}", "nested"),
        (b'{"custom_id":7,"payload":1}', "custom_id"),
        (b'{"custom_id":"","payload":1}', "custom_id"),
    ],
)
@pytest.mark.parametrize("before", [0, 4, 4999])
def test_a_broken_line_is_named_by_its_number(broken: bytes, what: str, before: int) -> None:
    good = b"".join(line(number) for number in range(before))
    with pytest.raises(InvalidInput, match=f"^Line {before + 1} ") as refused:
        cut_all(Cutter(), good + broken + b"\n" + line(9999))
    assert what in refused.value.detail
    assert refused.value.errors[0].pointer.startswith(f"/{before}")


def test_empty_lines_count_as_lines_and_not_as_items() -> None:
    cutter = Cutter()
    with pytest.raises(InvalidInput, match=r"^Line 4 "):
        cut_all(cutter, b'\n{"payload":1}\n\n{broken\n')


@pytest.mark.parametrize(("before", "lines"), [(b"", None), (b"\n", [2, 3]), (b"\r\n\n", [3, 4])])
def test_a_run_says_the_lines_of_its_items_where_empty_ones_shift_them(
    before: bytes, lines: list[int] | None
) -> None:
    [run] = cut_all(Cutter(), before + line(0) + line(1))
    assert (run.offset, run.lines) == (0, lines)


def test_a_byte_order_mark_and_crlf_are_taken() -> None:
    [run] = cut_all(Cutter(), b'\xef\xbb\xbf{"payload":1}\r\n{"payload":2}\r\n')
    assert run.items == [b'{"payload":1}', b'{"payload":2}']


@pytest.mark.parametrize("mark", [b'{"payload":1}\n\xef\xbb\xbf', b"\xef\xbb\xbf\xef\xbb\xbf"])
def test_a_byte_order_mark_is_taken_at_the_very_start_only(mark: bytes) -> None:
    with pytest.raises(InvalidInput, match="not JSON"):
        cut_all(Cutter(), mark + line(1))


def test_the_first_20_bad_lines_are_listed() -> None:
    body = b"".join(line(n) if n % 2 else b'{"payload":1,"custom_id":""}\n' for n in range(100))
    with pytest.raises(InvalidInput, match=r"^Line 1 .*19 more lines up to line 39") as refused:
        cut_all(Cutter(), body)
    errors = refused.value.errors
    assert [error.pointer for error in errors] == [f"/{n}/custom_id" for n in range(0, 40, 2)]
    assert errors[7].detail.startswith("Line 15 is not accepted: custom_id must be a string of")


def test_fewer_bad_lines_are_all_listed_and_no_item_is_cut_behind_the_first() -> None:
    cutter = Cutter()
    assert cutter.feed(b"{broken\n" + b"".join(line(n) for n in range(2000)) + b"null\n") == []
    with pytest.raises(InvalidInput) as refused:
        cutter.finish()
    assert [error.pointer for error in refused.value.errors] == ["/0", "/2001"]


def test_the_rest_of_a_bad_upload_is_not_read_to_its_end() -> None:
    cutter = Cutter()
    cutter.feed(b"{broken\n")
    with pytest.raises(InvalidInput, match=r"^Line 1 is not JSON"):
        cutter.feed(b"1\n".replace(b"1", b'{"payload":1}') * LINES_LOOKED_AT)


def test_an_upload_goes_on_where_an_earlier_part_of_it_ended() -> None:
    body = b"\n" + b"".join(line(n) for n in range(7))
    for place in range(len(body)):
        first = Cutter()
        runs = [*first.feed(body[:place]), *first.flush()]
        second = Cutter(first.total, first.line_number, first.rest, first.end)
        runs += cut_all(second, body[place:])
        assert [item for run in runs for item in run.items] == [line(n)[:-1] for n in range(7)]
        assert [number for run in runs for number in run.lines or ()] == list(range(2, 9))
        assert [run.offset for run in runs] == [0, *(r.offset for r in runs[1:])]
        assert second.end == len(body)


@pytest.mark.parametrize("nothing", [b"", b"\n", b" \n\r\n"])
def test_an_empty_upload_is_refused(nothing: bytes) -> None:
    with pytest.raises(InvalidInput, match="no items"):
        cut_all(Cutter(), nothing)


def test_an_upload_has_five_million_items_at_most() -> None:
    cutter = Cutter()
    cutter.total = 4_999_999
    cutter.feed(line(1))
    with pytest.raises(PayloadTooLarge, match="5000000 items"):
        cutter.feed(line(2))


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_over_256_kib_is_too_large_before_it_ends(end: bytes) -> None:
    with pytest.raises(PayloadTooLarge, match="Line 2 "):
        cut_all(Cutter(), line(1), b'{"payload":"' + b"x" * 300_000 + b'"}' + end)


@pytest.mark.parametrize("together", [1, 10])
async def test_the_event_loop_is_not_held_up_by_large_parts_of_many_uploads(together: int) -> None:
    rounds, turns = 0, UploadTurns()

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async def upload() -> int:
        part = b"".join(line(number) for number in range(20_000))
        cutter = Cutter()
        cut = [len(run.items) async for run in uploads.cut(parts(part), cutter, turns, owner_id="7")]
        return sum(cut) + sum(len(run.items) for run in cutter.finish())

    counting = asyncio.create_task(count())
    assert await asyncio.gather(*(upload() for _ in range(together))) == [20_000] * together
    counting.cancel()
    assert rounds >= 80 * together


def test_a_message_fits_its_contract() -> None:
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


async def test_a_source_reports_the_bytes_that_were_handled_and_hashes_all_of_them() -> None:
    read: list[int] = []
    source = UploadParts(parts(line(1), line(2)), read.append, hashlib.sha256())
    cutter = Cutter()
    assert [run async for run in uploads.cut(aiter(source), cutter, UploadTurns(), owner_id="7")] == []
    assert [len(run.items) for run in cutter.finish()] == [2]
    assert read == [len(line(1)), len(line(2))]
    assert source.digest.digest() == hashlib.sha256(line(1) + line(2)).digest()


async def test_bytes_that_are_not_handled_yet_do_not_count_as_read() -> None:
    read: list[int] = []
    full = b"".join(line(number) for number in range(CHUNK_ITEMS))
    runs = uploads.cut(
        aiter(UploadParts(parts(full, line(0)), read.append, hashlib.sha256())),
        Cutter(),
        UploadTurns(),
        owner_id="7",
    )
    await anext(runs)
    assert read == []


async def test_an_upload_that_stalls_is_given_up() -> None:
    async def stalling() -> AsyncIterator[bytes]:
        yield line(1)
        await asyncio.Event().wait()

    source = UploadParts(stalling(), lambda _: None, hashlib.sha256(), patience_s=0.01)
    with pytest.raises(UploadStalled):
        [run async for run in uploads.cut(aiter(source), Cutter(), UploadTurns(), owner_id="7")]


async def test_long_lines_are_read_in_a_thread_and_short_ones_not(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[bytes, bool]] = []

    def note(line: bytes, check: PayloadCheck | None) -> dict[str, Any] | tuple[str, str]:
        read.append((line, threading.current_thread() is threading.main_thread()))
        return lines.read_alone(line, check)

    monkeypatch.setattr(cutting, "read_alone", note)
    short, long = b'{"payload":0e000}', b'{"payload":[0e000,' + b"{}," * 6000 + b"0]}"
    source, cutter = parts(short + b"\n", long + b"\n", short + b"\n" + long), Cutter()
    assert [run async for run in uploads.cut(source, cutter, UploadTurns(), owner_id="7")] == []
    [run] = await uploads.finish(cutter)
    assert run.items == [short, long, short, long]
    assert read == [(short, True), (long, False), (short, True), (long, False)]
