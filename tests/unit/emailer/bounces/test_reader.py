"""Bounces are read in a process: one that is made to take for ever costs two seconds of CPU time at most."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator

import pytest

from emailer.bounces import reader as bounce_reader
from emailer.bounces.reader import BounceReader
from emailer.bounces.reading import OTHER, Bounce

# In an encoded part, a line can be as long as the message.
FOR_EVER = (
    b"Content-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n"
    b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + base64.encodebytes(
        b"This Message was undeliverable due to the following reason:\n" + b"<" * 40_000 + b"\n"
    )
    + b"--B\r\n\r\nend\r\n--B--\r\n"
)
REPORT = (
    b"Content-Type: message/delivery-status\r\n\r\n"
    b"Reporting-MTA: dns; r\r\n\r\nAction: failed\r\nStatus: 5.1.1\r\n"
)


@pytest.fixture
async def reader(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BounceReader]:
    # On a busy machine two seconds of CPU time take longer than a caller waits: then nothing is known of the
    # message, and it would come again.
    monkeypatch.setattr(bounce_reader, "ANSWER_WITHIN_S", 100)
    made = BounceReader()
    yield made
    await made.close()


async def test_a_message_that_would_be_read_for_ever_is_no_report_and_the_next_one_is_read(
    reader: BounceReader,
) -> None:
    contents = (FOR_EVER, REPORT, b"I am away.")
    found = await asyncio.gather(*(reader.read(content, owner_id="ann") for content in contents))
    assert found == [OTHER, Bounce("hard", "gone", "5.1.1"), OTHER]
