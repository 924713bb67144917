"""Transactional mail overtakes what is queued, however much that is and however a domain behaves."""

from __future__ import annotations

import asyncio

import pytest

from integration.emailer.test_lanes import queue_bulk
from support.doubles.post_office import DispatcherTerms, PostOffice, mail
from support.doubles.smtp import SAY_NOTHING, Step
from support.waiting import until

_MAILS = 200
_EVERY_S = 0.02
# The recipients that the dispatcher has in hand.
_WINDOW = 400


@pytest.mark.timeout(400)
@pytest.mark.parametrize("queued", [50_000, pytest.param(1_000_000, marks=pytest.mark.long)])
async def test_a_transactional_mail_leaves_before_bulk_mail_that_is_not_in_hand_yet(
    post_office: PostOffice, queued: int
) -> None:
    await queue_bulk(post_office, queued)
    stuck = [mail(owner_id="flood", to=[f"reader-{number}@tarpit.example"]) for number in range(200)]
    for command in stuck:
        post_office.server.script(command.to[0], Step("rcpt", SAY_NOTHING))
    await post_office.accept(*stuck)
    received = post_office.server.received
    accepted: dict[str, int] = {}
    async with post_office.delivering(DispatcherTerms(connections=8, window=_WINDOW, timeout_s=300)):
        await until(lambda: any("tarpit" in line for line in post_office.server.commands))
        await until(lambda: any(one.recipient.startswith("r@") for one in received))
        bulk_before = len(received)
        for number in range(_MAILS):
            recipient = f"reader-{number}@example.com"
            await post_office.accept(mail(owner_id="shop", to=[recipient]))
            accepted[recipient] = len(received)
            await asyncio.sleep(_EVERY_S)
        await until(lambda: accepted.keys() <= {one.recipient for one in received})
        bulk = len(received) - bulk_before - _MAILS
    positions = {one.recipient: position for position, one in enumerate(received)}
    overtaken_by = sorted(positions[recipient] - before for recipient, before in accepted.items())
    print(f"beside {queued:,} bulk mails and a tar pit: at most {overtaken_by[-1]} mails came first")
    assert overtaken_by[-1] < _WINDOW
    assert bulk > 0
