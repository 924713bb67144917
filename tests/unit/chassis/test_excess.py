"""The excess of an owner: which messages and bundles go on, and to which queue."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import cast

import pytest
from aiormq.abc import AbstractChannel

from chassis.broker import bundles
from chassis.broker.arrivals import Arrivals
from chassis.broker.envelope import Outgoing
from chassis.broker.excess import Excess, ExcessTraffic, WholeExcess
from chassis.broker.incoming import Incoming
from contracts import headers as names
from contracts.emails import EmailStatusChanged, ResendEmail, SendEmail, SendPackedEmail
from contracts.message import Message

SEND, PACKED, AGAIN = SendEmail.message_type, SendPackedEmail.message_type, ResendEmail.message_type
CONTRACTS: dict[str, type[Message]] = {
    contract.message_type: contract for contract in (SendEmail, SendPackedEmail, ResendEmail)
}
QUEUE = cast(str, SendEmail.excess_queue)


def outgoing(owner_id: str, message_type: str = SEND) -> Outgoing:
    return Outgoing("x", "q", b"{}", message_type, "id", {names.TENANT: owner_id})


def incoming(*parts: Outgoing) -> Incoming:
    """Return the parts as they arrive, in a bundle if there are several."""
    message = bundles.wrap(parts)
    channel = cast(AbstractChannel, None)
    return Incoming(channel, 1, message.body, message.message_type, message.message_id, message.headers)


@pytest.fixture
def arrived() -> Arrivals:
    """Two messages of `many` wait, and one of `few`."""
    arrived = Arrivals()
    for owner_id in ("many", "many", "few"):
        arrived.put_nowait(incoming(outgoing(owner_id)))
    return arrived


@pytest.fixture
def excess(arrived: Arrivals) -> Excess:
    return Excess(arrived, CONTRACTS, most=2)


@pytest.mark.parametrize(
    ("message_type", "owner_id", "queue"),
    [
        (SEND, "many", QUEUE),
        (SEND, "few", None),
        (SEND, "", None),
        (AGAIN, "many", None),
        ("unknown", "many", None),
    ],
)
def test_a_command_of_an_owner_of_whom_many_wait_goes_on_if_it_has_a_queue(
    excess: Excess, message_type: str, owner_id: str, queue: str | None
) -> None:
    assert excess.queue_of(message_type, owner_id) == queue


@pytest.mark.parametrize(
    "parts",
    [
        [outgoing("many"), outgoing("few")],
        [outgoing("few"), outgoing("few")],
        [outgoing("many"), outgoing("many", AGAIN)],
        [outgoing("many")],
    ],
    ids=["another owner's", "few wait", "without such a queue", "no bundle"],
)
def test_a_bundle_does_not_go_on_as_it_is_if_any_part_of_it_stays(
    excess: Excess, parts: list[Outgoing]
) -> None:
    assert excess.of_all(incoming(*parts)) is None


def test_a_bundle_goes_on_as_it_is_if_each_part_of_it_does(excess: Excess) -> None:
    parts = [outgoing("many"), outgoing("many", PACKED), outgoing("many")]
    assert excess.of_all(incoming(*parts)) == WholeExcess(QUEUE, Counter({SEND: 2, PACKED: 1}))


def test_a_bundle_that_cannot_be_read_does_not_go_on(excess: Excess) -> None:
    bundle = incoming(outgoing("many"), outgoing("many"))
    broken = Incoming(bundle.channel, 1, bundle.body[:-1], bundle.message_type, "id", bundle.headers)
    assert excess.of_all(broken) is None


def test_everything_stays_where_no_number_is_set(arrived: Arrivals) -> None:
    excess = Excess(arrived, CONTRACTS, most=None)
    assert excess.queue_of(SEND, "many") is None
    assert excess.of_all(incoming(outgoing("many"), outgoing("many"))) is None


def test_a_message_that_is_no_command_stays(arrived: Arrivals) -> None:
    excess = Excess(arrived, {EmailStatusChanged.message_type: EmailStatusChanged}, most=2)
    assert excess.queue_of(EmailStatusChanged.message_type, "many") is None


def test_an_owner_is_urgent_until_half_of_what_it_may_have_waits() -> None:
    arrived = Arrivals()
    excess = Excess(arrived, CONTRACTS, most=4)
    assert not excess.is_urgent()
    arrived.put_nowait(incoming(outgoing("few")))
    assert excess.is_urgent()
    arrived.put_nowait(incoming(outgoing("few")))
    assert not excess.is_urgent()


def test_nobody_is_urgent_where_no_number_is_set(arrived: Arrivals) -> None:
    assert not Excess(arrived, CONTRACTS, most=None).is_urgent()


async def test_consumers_wait_while_much_excess_is_on_its_way() -> None:
    traffic, is_urgent = ExcessTraffic(), False
    with traffic.moving(499):
        # Returns at once: this many may always be on their way.
        await traffic.wait(is_urgent=lambda: False)
        with traffic.moving(1):
            waiting = [asyncio.create_task(traffic.wait(is_urgent=lambda: False)) for _ in range(2)]
            pressed = asyncio.create_task(traffic.wait(is_urgent=lambda: is_urgent))
            await asyncio.sleep(0)
            traffic.notice()
            await asyncio.sleep(0)
            assert not any(task.done() for task in (*waiting, pressed))
            is_urgent = True
            traffic.notice()
            await pressed
            assert not any(task.done() for task in waiting)
        await asyncio.gather(*waiting)
