"""What an owner has too much of in a queue goes on to another one, and the rest is handled at once."""

from __future__ import annotations

import asyncio

import aiormq
import pytest
from prometheus_client import REGISTRY

from chassis.broker import bundles
from chassis.broker.consumer import Consumer
from chassis.broker.envelope import Delivery, Outgoing, command
from chassis.broker.excess import ExcessTraffic
from chassis.broker.handlers import Direct, Handler
from chassis.broker.topology import declare
from contracts.emails import ResendEmail, SendEmail
from contracts.message import Message
from contracts.topology import EMAIL, GATEWAY, TOPOLOGIES
from support.bench import Bench
from support.bundled import messages_in
from support.doubles.post_office import mail
from support.waiting import until

QUEUE, EXCESS = f"{EMAIL}.send", f"{EMAIL}.excess"
_MOST = 10


def mails_of(owner_id: str, count: int) -> list[Outgoing]:
    return [command(mail(owner_id=owner_id, subject=str(n)), tenant=owner_id) for n in range(count)]


def resending(owner_id: str) -> Outgoing:
    sent = mail(owner_id=owner_id)
    again = ResendEmail(
        email_id=sent.email_id, source_id=sent.email_id, owner_id=owner_id, accepted_at=sent.accepted_at
    )
    return command(again, tenant=owner_id)


def moved_count() -> float:
    """Return how many commands have gone on to the queue of the excess."""
    labels = {"queue": QUEUE, "type": SendEmail.message_type, "outcome": "excess"}
    return REGISTRY.get_sample_value("tickwire_messages_consumed_total", labels) or 0


@pytest.mark.parametrize("is_bundled", [True, False])
async def test_commands_beyond_the_share_of_an_owner_go_on_and_those_of_others_stay(
    bench: Bench, broker_url: str, is_bundled: bool
) -> None:
    has_begun, may_end, handled = asyncio.Event(), asyncio.Event(), list[str]()

    # In no transaction, which may not be held for long.
    async def note(delivery: Delivery[SendEmail]) -> None:
        has_begun.set()
        await may_end.wait()
        handled.append(f"{delivery.tenant} {getattr(delivery.message, 'subject', 'again')}")

    worker, sender = await bench.build(EMAIL), await bench.build(GATEWAY)
    handlers: dict[type[Message], Handler] = {SendEmail: Direct(note), ResendEmail: Direct(note)}
    worker.consume(QUEUE, handlers, most_of_owner=_MOST, prefetch=4 if is_bundled else 100)
    await bench.run(worker)
    await bench.run(sender)
    connection = await aiormq.connect(broker_url)
    channel = await connection.channel()
    await channel.queue_purge(EXCESS)
    publisher = sender.messaging.publisher
    first, *flood = mails_of("flood", 5 * 64)
    await publisher.publish(first)
    await has_begun.wait()
    # Behind more bundles than are delivered at a time, and among others in one of them.
    sent = [*flood, *mails_of("neighbour", 3), *mails_of("flood", 20), resending("flood")]
    if is_bundled:
        assert not any(await publisher.publish_together(sent))
    else:
        for message in sent:
            await publisher.publish(message)
    stay = _MOST + 3 + 1
    found: list[str] = []

    async def have_gone_on() -> bool:
        while parts := messages_in(await channel.basic_get(EXCESS, no_ack=True)):
            assert {part.headers["x-tenant"] for part in parts} == {"flood"}
            found.extend(part.message_id for part in parts)
        return len(found) == len(sent) - stay

    await until(have_gone_on, what=lambda: f"{len(found)} of {len(sent) - stay}")
    assert len(set(found)) == len(found)
    may_end.set()
    await until(lambda: len(handled) == 1 + stay, what=lambda: str(handled))
    # In turns, after the one that was being handled.
    assert [handled.index(f"neighbour {number}") for number in range(3)] == [2, 4, 6]
    # A command that has no such queue stays, however many wait.
    assert "flood again" in handled
    await connection.close()


async def test_a_bundle_that_is_nothing_but_excess_goes_on_as_it_came(bench: Bench, broker_url: str) -> None:
    has_begun, may_end, handled = asyncio.Event(), asyncio.Event(), list[str]()

    async def note(delivery: Delivery[SendEmail]) -> None:
        has_begun.set()
        await may_end.wait()
        handled.append(str(delivery.message_id))

    worker, sender = await bench.build(EMAIL), await bench.build(GATEWAY)
    worker.consume(QUEUE, {SendEmail: Direct(note)}, most_of_owner=_MOST, prefetch=4)
    await bench.run(worker)
    await bench.run(sender)
    connection = await aiormq.connect(broker_url)
    channel = await connection.channel()
    await channel.queue_purge(EXCESS)
    before = moved_count()
    first, *kept = mails_of("flood", 1 + _MOST)
    await sender.messaging.publisher.publish(first)
    await has_begun.wait()
    excess = [bundles.wrap(mails_of("flood", 64)) for _ in range(6)]
    for message in (bundles.wrap(kept), *excess):
        await sender.messaging.publisher.publish(message)
    found: list[tuple[str | None, bytes]] = []

    async def have_gone_on() -> bool:
        while (message := await channel.basic_get(EXCESS, no_ack=True)).delivery_tag is not None:
            assert message.header is not None
            found.append((message.header.properties.message_id, message.body))
        return len(found) == len(excess)

    await until(have_gone_on, what=lambda: f"{len(found)} of {len(excess)}")
    assert set(found) == {(bundle.message_id, bundle.body) for bundle in excess}
    # Each part has an outcome.
    assert moved_count() - before == len(excess) * 64
    may_end.set()
    await until(lambda: len(handled) == 1 + _MOST, what=lambda: str(len(handled)))
    await connection.close()


async def test_much_excess_on_its_way_is_moved_before_masses_are_handled(bench: Bench) -> None:
    has_neighbour, handled = asyncio.Event(), list[str]()

    async def note(delivery: Delivery[SendEmail]) -> None:
        handled.append(delivery.tenant)
        if delivery.tenant == "neighbour":
            has_neighbour.set()

    worker, sender = await bench.build(EMAIL), await bench.build(GATEWAY)
    publisher, traffic = worker.messaging.publisher, ExcessTraffic(longest_wait_s=600)
    worker.messaging.consume(
        Consumer(
            QUEUE,
            {SendEmail: Direct(note)},
            service=EMAIL,
            postgres=worker.postgres,
            publisher=publisher,
            most_of_owner=4,
            traffic=traffic,
        )
    )
    await bench.run(sender)
    with traffic.moving(1000):
        await bench.run(worker)
        for message in (bundles.wrap(mails_of("flood", 4)), *mails_of("neighbour", 1)):
            await sender.messaging.publisher.publish(message)
        await has_neighbour.wait()
        # Owners take turns: one of the masses comes before the message that was not to wait for them.
        assert handled == ["flood", "neighbour"]
    await until(lambda: len(handled) == 5, what=lambda: str(handled))


async def test_commands_stay_while_the_queue_of_the_excess_takes_no_more(
    bench: Bench, broker_url: str
) -> None:
    has_begun, may_end, handled = asyncio.Event(), asyncio.Event(), list[str]()

    async def note(delivery: Delivery[SendEmail]) -> None:
        has_begun.set()
        await may_end.wait()
        handled.append(delivery.tenant)

    worker, sender = await bench.build(EMAIL), await bench.build(GATEWAY)
    worker.consume(QUEUE, {SendEmail: Direct(note)}, most_of_owner=_MOST, prefetch=4)
    await bench.run(worker)
    await bench.run(sender)
    connection = await aiormq.connect(broker_url)
    channel = await connection.channel()
    # It accepts nothing while it is not there.
    await channel.queue_delete(EXCESS)
    publisher = sender.messaging.publisher
    first, *flood = mails_of("flood", 10 * 64)
    await publisher.publish(first)
    await has_begun.wait()
    # More bundles than are prefetched: none of them may keep a place for good.
    assert not any(await publisher.publish_together(flood))
    assert not any(await publisher.publish_together(mails_of("neighbour", 4)))
    may_end.set()
    await until(lambda: len(handled) == 10 * 64 + 4, what=lambda: str(len(handled)))
    assert handled.count("neighbour") == 4
    await declare(channel, TOPOLOGIES[EMAIL])
    await connection.close()
