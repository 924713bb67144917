"""Replies are put together from whatever pieces the network delivers."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emailer.errors import ConnectionLost
from emailer.sending.outcomes import SmtpReply
from emailer.sending.wire import Wire

line = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=30)
reply = st.tuples(st.integers(200, 599), st.lists(line, min_size=1, max_size=4))


def written(code: int, lines: list[str]) -> bytes:
    marks = ["-"] * (len(lines) - 1) + [" "]
    return "".join(f"{code}{mark}{text}\r\n" for mark, text in zip(marks, lines, strict=True)).encode()


@given(st.lists(reply, min_size=1, max_size=5), st.data())
async def test_replies_arrive_whole_however_they_are_cut(
    replies: list[tuple[int, list[str]]], data: st.DataObject
) -> None:
    stream = b"".join(written(code, lines) for code, lines in replies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    wire = Wire()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        wire.data_received(stream[start:end])
    found = await wire.replies(len(replies), timeout_s=1)
    assert found == [SmtpReply(code, "\n".join(lines)) for code, lines in replies]
    assert wire.is_quiet


async def test_replies_are_waited_for() -> None:
    wire = Wire()
    waiting = asyncio.create_task(wire.replies(2, timeout_s=5))
    await asyncio.sleep(0)
    wire.data_received(b"250 one\r\n25")
    wire.data_received(b"1 two\r\n")
    assert await waiting == [SmtpReply(250, "one"), SmtpReply(251, "two")]


async def test_a_connection_that_ends_early_returns_the_replies_so_far_and_then_fails() -> None:
    wire = Wire()
    waiting = asyncio.create_task(wire.replies(3, timeout_s=5))
    await asyncio.sleep(0)
    wire.data_received(b"421 leaving\r\n")
    wire.connection_lost(None)
    assert await waiting == [SmtpReply(421, "leaving")]
    with pytest.raises(ConnectionLost, match="closed the connection") as caught:
        await wire.replies(1, timeout_s=5, after_dot=True)
    assert caught.value.after_dot


async def test_silence_ends_in_a_time_out_that_breaks_the_connection() -> None:
    wire = Wire()
    with pytest.raises(ConnectionLost, match=r"within 0\.01 s"):
        await wire.replies(1, timeout_s=0.01)
    assert not wire.is_quiet


@pytest.mark.parametrize("before_s", [0.01, 600])
async def test_each_reply_has_a_time_of_its_own(before_s: float) -> None:
    patient, hasty = Wire(), Wire()
    for wire in (patient, hasty):
        earlier = asyncio.create_task(wire.replies(1, timeout_s=before_s))
        await asyncio.sleep(0)
        wire.data_received(b"250 one\r\n")
        await earlier
    waiting = asyncio.create_task(patient.replies(1, timeout_s=60))
    with pytest.raises(ConnectionLost, match=r"within 0\.05 s"):
        await hasty.replies(1, timeout_s=0.05)
    patient.data_received(b"250 two\r\n")
    assert await waiting == [SmtpReply(250, "two")]


@pytest.mark.parametrize(
    "data",
    [
        *(b"hello\r\n", b"\r\n", b"25\r\n", b"250=x\r\n", "٢٥٠ ok\r\n".encode(), b"x" * 70_000),
        *(b"250-\r\n" * 12_000, b"250-" + b"x" * 30_000 + b"\r\n250-" + b"x" * 40_000),
    ],
    ids=["words", "empty", "two digits", "no mark", "arabic", "no end", "lines without end", "long lines"],
)
async def test_a_reply_that_is_not_smtp_breaks_the_connection(data: bytes) -> None:
    wire = Wire()
    wire.data_received(data)
    with pytest.raises(ConnectionLost):
        await wire.replies(1, timeout_s=1)


@pytest.mark.parametrize("piece", [b"250-\r\n", b"250 \r\n", b"250-x\r\n250 x\r\n"])
async def test_replies_without_end_break_the_connection_whatever_their_lines_hold(piece: bytes) -> None:
    wire = Wire()
    for _ in range(12):
        wire.data_received(piece * 1000)
    with suppress(ConnectionLost):
        assert len(await wire.replies(50_000, timeout_s=1)) == 20
    with pytest.raises(ConnectionLost, match=r"overlong reply|replies to no command"):
        await wire.replies(1, timeout_s=1)


async def test_an_unsolicited_reply_makes_a_connection_unusable() -> None:
    wire = Wire()
    assert wire.is_quiet
    wire.data_received(b"421 too idle\r\n")
    assert not wire.is_quiet


async def test_a_nul_in_a_reply_cannot_reach_the_database() -> None:
    wire = Wire()
    wire.data_received(b"250 a\0b\r\n")
    assert await wire.replies(1, timeout_s=1) == [SmtpReply(250, "a\ufffdb")]
