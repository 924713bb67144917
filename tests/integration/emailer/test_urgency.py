"""Transactional mail leaves within a second, whatever is queued and however a domain behaves."""

from __future__ import annotations

import asyncio
import time

import pytest

from integration.emailer.test_lanes import queue_bulk
from support.doubles.post_office import DispatcherTerms, PostOffice, mail
from support.doubles.smtp import SAY_NOTHING, Step
from support.waiting import until

_MAILS = 200
_EVERY_S = 0.02


async def note_arrivals(post_office: PostOffice, arrived: dict[str, float]) -> None:
    """Record the arrival of each recipient's mail, until cancelled."""
    seen = 0
    while True:
        received = post_office.server.received
        for one in received[seen:]:
            arrived.setdefault(one.recipient, time.monotonic())
        seen = len(received)
        await asyncio.sleep(0.002)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("queued", [50_000, pytest.param(1_000_000, marks=pytest.mark.long)])
async def test_transactional_mail_leaves_within_a_second(post_office: PostOffice, queued: int) -> None:
    await queue_bulk(post_office, queued)
    stuck = [mail(owner_id="flood", to=[f"reader-{number}@tarpit.example"]) for number in range(200)]
    for command in stuck:
        post_office.server.script(command.to[0], Step("rcpt", SAY_NOTHING))
    await post_office.accept(*stuck)
    arrived: dict[str, float] = {}
    accepted: dict[str, float] = {}
    noting = asyncio.create_task(note_arrivals(post_office, arrived))
    try:
        async with post_office.delivering(DispatcherTerms(connections=8, window=400, timeout_s=300)):
            await until(lambda: any("tarpit" in line for line in post_office.server.commands))
            await until(lambda: any(recipient.startswith("r@") for recipient in arrived))
            bulk_before = len(arrived)
            for number in range(_MAILS):
                recipient = f"reader-{number}@example.com"
                await post_office.accept(mail(owner_id="shop", to=[recipient]))
                accepted[recipient] = time.monotonic()
                await asyncio.sleep(_EVERY_S)
            await until(lambda: accepted.keys() <= arrived.keys())
            bulk = len(post_office.server.received) - bulk_before - _MAILS
    finally:
        noting.cancel()
    waits = sorted(arrived[recipient] - at for recipient, at in accepted.items())
    p99_s = waits[int(0.99 * len(waits)) - 1]
    print(
        f"beside {queued:,} bulk mails and a tar pit: p50 {waits[len(waits) // 2]:.3f} s,"
        f" p99 {p99_s:.3f} s, most {waits[-1]:.3f} s; {bulk} bulk mails left meanwhile"
    )
    assert p99_s < 1
    assert bulk > 0
