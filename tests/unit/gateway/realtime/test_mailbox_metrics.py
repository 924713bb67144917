"""Bytes that wait are counted while they wait, and no longer."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from gateway.realtime.mailbox import Mailbox


def waiting_bytes() -> float:
    return REGISTRY.get_sample_value("tickwire_realtime_queued_bytes") or 0.0


@pytest.fixture
def before() -> float:
    return waiting_bytes()


async def test_what_is_taken_waits_no_longer(before: float) -> None:
    now = 10.0
    mailbox = Mailbox(1000, lambda: now)
    mailbox.put(b"x" * 300)
    mailbox.put(b"x" * 100)
    assert waiting_bytes() - before == 400
    seconds = REGISTRY.get_sample_value("tickwire_realtime_queue_seconds_sum") or 0.0
    now = 12.5
    await mailbox.take()
    assert waiting_bytes() == before
    assert REGISTRY.get_sample_value("tickwire_realtime_queue_seconds_sum") == pytest.approx(seconds + 2.5)


def test_what_overflows_waits_no_longer(before: float) -> None:
    mailbox = Mailbox(1000, lambda: 0.0)
    mailbox.put(b"x" * 900)
    mailbox.put(b"x" * 200)
    assert waiting_bytes() == before


def test_nothing_waits_for_a_connection_that_is_closed(before: float) -> None:
    mailbox = Mailbox(1000, lambda: 0.0)
    mailbox.put(b"x" * 900)
    mailbox.close()
    mailbox.put(b"x" * 10)
    assert waiting_bytes() == before
