"""Compressed uploads: the same bytes come out, and no more than their bounds."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Sequence

import pytest

from chassis.errors import InvalidInput, PayloadTooLarge
from gateway.batches.inflating import MOST_EMPTY_MEMBERS, MOST_PADDING_BYTES, inflated

LINES = b"".join(b'{"custom_id":"%d","payload":%d}\n' % (n, n * n) for n in range(20_000))


async def unpacked(parts: Sequence[bytes], *, limit: int = 1 << 30) -> bytes:
    async def arriving() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    return b"".join([piece async for piece in inflated(arriving(), limit=limit)])


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
async def test_any_split_of_a_stream_gives_its_bytes(size: int) -> None:
    packed = gzip.compress(LINES)
    assert await unpacked([packed[start : start + size] for start in range(0, len(packed), size)]) == LINES


async def test_members_one_after_the_other_are_one_upload() -> None:
    assert await unpacked([gzip.compress(b"one\n") + gzip.compress(b"two\n")]) == b"one\ntwo\n"
    assert await unpacked([gzip.compress(b"one\n"), gzip.compress(b"two\n")]) == b"one\ntwo\n"


@pytest.mark.parametrize(
    "broken",
    [
        LINES,
        zlib.compress(LINES),
        gzip.compress(LINES)[:-1],
        gzip.compress(LINES) + b"more",
        b"\x1f\x8b",
        b"\0" + gzip.compress(LINES),
        gzip.compress(LINES)[:-4] + b"\0" * 20,
        gzip.compress(LINES) + b"\0\0\x1f",
    ],
)
async def test_a_body_that_is_not_gzip_to_its_end_is_refused(broken: bytes) -> None:
    with pytest.raises((OSError, EOFError, zlib.error)):
        gzip.decompress(broken)
    with pytest.raises(InvalidInput):
        await unpacked([broken])


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize("padding", [1, 511, 10_240])
async def test_zeros_behind_members_are_skipped_as_other_readers_do(padding: int, size: int) -> None:
    zeros = b"\0" * padding
    members = [gzip.compress(b"one\n"), zeros, gzip.compress(b""), gzip.compress(b"two\n", mtime=0), zeros]
    packed = b"".join(members)
    assert gzip.decompress(packed) == b"one\ntwo\n"
    assert await unpacked([packed[start : start + size] for start in range(0, len(packed), size)]) == (
        b"one\ntwo\n"
    )


async def test_zeros_are_bounded() -> None:
    packed, zeros = gzip.compress(b"one\n"), b"\0" * (MOST_PADDING_BYTES // 2)
    assert await unpacked([packed, zeros, packed, zeros]) == b"one\none\n"
    with pytest.raises(InvalidInput, match="1048576 zeros"):
        await unpacked([packed, zeros, packed, zeros, b"\0"])


async def test_the_limit_applies_to_the_unpacked_bytes() -> None:
    assert await unpacked([gzip.compress(LINES)], limit=len(LINES)) == LINES
    with pytest.raises(PayloadTooLarge, match="when it is unpacked"):
        await unpacked([gzip.compress(LINES)], limit=len(LINES) - 1)


async def test_a_body_that_grows_beyond_measure_is_refused_before_it_is_unpacked() -> None:
    bomb = gzip.compress(b"\n" * (200 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge, match="200 times"):
            await unpacked([bomb])
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


async def test_empty_members_are_bounded_and_other_tasks_run_between_them() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    empty = gzip.compress(b"") * MOST_EMPTY_MEMBERS
    counting = asyncio.create_task(count_turns())
    assert await unpacked([empty + gzip.compress(b"one\n")]) == b"one\n"
    counting.cancel()
    assert turns >= MOST_EMPTY_MEMBERS - 1
    with pytest.raises(InvalidInput, match="1000 empty members"):
        await unpacked([gzip.compress(b"one\n") + empty + gzip.compress(b"")])
