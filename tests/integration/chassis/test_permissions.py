"""A service's user of the broker reaches its own queues and its exchanges, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiormq
import pytest
from aiormq.abc import AbstractChannel, DeliveredMessage

from chassis.broker.envelope import Delivery, command, new_id
from chassis.broker.handlers import Direct
from chassis.broker.topology import declare_rpc_queue
from chassis.deadlines import Deadline
from chassis.errors import Unavailable
from chassis.postgres import Connection
from chassis.runtime import ServiceRuntime
from contracts import headers as names
from contracts.batches import INTAKE, CancelBatch
from contracts.parked import ListParked, ParkedPage
from contracts.topology import (
    BATCH_PROCESSOR,
    COMMANDS,
    EMAIL,
    GATEWAY,
    REPLIES,
    SERVICES,
    SHARED_EXCHANGES,
    STOCK_DATA,
    TOPOLOGIES,
    rpc_queue,
)
from native import rabbitmq
from native.rabbitmq import RabbitMQ
from rabbitmq import definitions
from support.bench import Bench
from support.databases import FreshDatabase
from support.waiting import until


@asynccontextmanager
async def broker_with(definitions: dict[str, Any], folder: Path) -> AsyncIterator[RabbitMQ]:
    """Run a broker with these definitions."""
    file = folder / "given.json"
    file.write_text(json.dumps(definitions))
    async with rabbitmq.start(folder / "broker", definitions=file) as server:
        yield server


@asynccontextmanager
async def benches_on(server: RabbitMQ, fresh_database: FreshDatabase) -> AsyncIterator[dict[str, Bench]]:
    """Yield a bench for each service, with the service's own user of the broker."""
    async with AsyncExitStack() as stack:
        yield {service: Bench(server.url_of(service), fresh_database, stack) for service in SERVICES}


async def test_every_service_works_with_its_own_rights_only(
    rabbitmq_server: RabbitMQ, broker_url: str, fresh_database: FreshDatabase
) -> None:
    async with benches_on(rabbitmq_server, fresh_database) as benches:
        await work_together(benches)


async def test_every_service_works_with_a_broker_that_still_has_the_definitions_of_the_release_before(
    tmp_path: Path, fresh_database: FreshDatabase
) -> None:
    """A broker that goes on running has none of the bindings between exchanges, and allows others."""
    before = definitions.build()
    for permission in before["permissions"]:
        permission["read"] = permission["read"].replace(")$", "|commands|rpc)$")
    before["bindings"] = [b for b in before["bindings"] if b["destination_type"] == "queue"]
    async with (
        broker_with(before, tmp_path) as server,
        benches_on(server, fresh_database) as benches,
    ):
        await work_together(benches)


async def test_a_command_that_has_two_ways_to_its_queue_arrives_once(broker_url: str) -> None:
    """The release before has bound the queue itself, and the definitions lead to it."""
    connection = await aiormq.connect(broker_url)
    channel = await connection.channel()
    await channel.queue_bind("email.send", COMMANDS, routing_key="email.send")
    await channel.basic_publish(b"{}", exchange=COMMANDS, routing_key="email.send", mandatory=True)
    assert (await channel.queue_purge("email.send")).message_count == 1
    await channel.queue_unbind("email.send", COMMANDS, routing_key="email.send")
    await channel.basic_publish(b"{}", exchange=COMMANDS, routing_key="email.send", mandatory=True)
    assert (await channel.queue_purge("email.send")).message_count == 1
    await connection.close()


async def work_together(benches: dict[str, Bench]) -> None:
    """Declare, consume, answer, retry, park, replay, publish events and ask with all services."""
    attempts: list[int] = []

    async def fail_first(delivery: Delivery[CancelBatch]) -> None:
        attempts.append(delivery.attempt)
        if delivery.message.owner_id == "poison" or delivery.attempt == 1:
            raise Unavailable("not yet")

    runtimes: dict[str, ServiceRuntime] = {}
    for service, bench in benches.items():
        runtimes[service] = await bench.build(service)
        if service == BATCH_PROCESSOR:
            runtimes[service].consume(INTAKE, {CancelBatch: Direct(fail_first)}, concurrency=2)
        if service != GATEWAY:
            runtimes[service].answer({})
        await bench.run(runtimes[service])
    rpc = runtimes[GATEWAY].messaging.rpc
    for service in (STOCK_DATA, EMAIL, BATCH_PROCESSOR):
        assert await rpc.call(ListParked(), ParkedPage, Deadline.after(20), service=service)
    publisher = runtimes[GATEWAY].messaging.publisher
    await publisher.publish(command(CancelBatch(batch_id=uuid4(), owner_id="ann")))
    await until(lambda: attempts == [1, 2])
    poison = command(CancelBatch(batch_id=uuid4(), owner_id="poison"))
    await publisher.publish(replace(poison, headers={**poison.headers, names.ATTEMPT: 6}))
    worker = runtimes[BATCH_PROCESSOR]

    async def parked() -> ParkedPage | None:
        found = await worker.parked.page(ListParked(), Deadline.after(5))
        return found if found.data else None

    assert (await until(parked)).data[0].message_id == poison.message_id
    # News of it left through the outbox, to the queue of the gateway's events.
    async with worker.postgres.connection() as connection:
        await until(lambda: _is_empty(connection))
    await until(lambda: all(runtime.health.reasons() == {} for runtime in runtimes.values()))


@pytest.mark.parametrize(
    ("user", "exchange", "routing_key"),
    [
        (EMAIL, "", "gateway.events"),
        (EMAIL, "", "email.send"),
        (EMAIL, "gateway", "gateway.events"),
        (EMAIL, "retry.gateway", "2s"),
        (EMAIL, "batch-processor", "batch-processor.parked"),
        (EMAIL, "commands", "batch-processor.intake"),
        (EMAIL, "rpc", "stock-data.rpc"),
        (EMAIL, "live", "quotes"),
        (EMAIL, "events", "batch.finished"),
        (STOCK_DATA, "events", "email.status-changed"),
        (STOCK_DATA, "commands", "email.send"),
        (STOCK_DATA, "live", "chat"),
        (BATCH_PROCESSOR, "live", "quotes"),
        (GATEWAY, "live", "batch.x"),
        (BATCH_PROCESSOR, "", "email.send"),
        (GATEWAY, "events", "email.status-changed"),
        (GATEWAY, "replies", "x"),
        (GATEWAY, "", "email.parked"),
    ],
)
async def test_a_user_cannot_publish_to_exchanges_that_are_not_its_own(
    rabbitmq_server: RabbitMQ, broker_url: str, user: str, exchange: str, routing_key: str
) -> None:
    connection = await aiormq.connect(rabbitmq_server.url_of(user))
    channel = await connection.channel()
    with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
        await channel.basic_publish(b"{}", exchange=exchange, routing_key=routing_key)
    await connection.close()


@pytest.mark.parametrize(
    ("user", "key"),
    [
        (GATEWAY, "chat"),
        (GATEWAY, "mail"),
        (GATEWAY, "presence"),
        (STOCK_DATA, "quotes"),
        (STOCK_DATA, "bars"),
        (BATCH_PROCESSOR, "batch.0b5c1d9e-8f0a-7c3e-9a55-1f2e3d4c5b6a"),
    ],
)
async def test_a_user_publishes_live_messages_under_its_own_keys(
    rabbitmq_server: RabbitMQ, broker_url: str, user: str, key: str
) -> None:
    connection = await aiormq.connect(rabbitmq_server.url_of(user))
    channel = await connection.channel()
    confirmed = await channel.basic_publish(b"{}", exchange="live", routing_key=key)
    assert isinstance(confirmed, aiormq.spec.Basic.Ack)
    await connection.close()


@pytest.mark.parametrize("user", SERVICES)
async def test_a_user_binds_no_queue_of_its_own_to_what_others_get(
    rabbitmq_server: RabbitMQ, broker_url: str, user: str
) -> None:
    """A copy of every command would reach it, whose owner still gets the original."""
    binds = TOPOLOGIES[user].binds
    foreign = [(e.name, "x") for other in set(SERVICES) - {user} for e in TOPOLOGIES[other].exchanges]
    foreign += [(e.name, key) for e in SHARED_EXCHANGES if e.name not in binds for key in _keys(e.name)]
    # Only a topic exchange tells keys apart.
    foreign += [
        (e.name, key)
        for e in SHARED_EXCHANGES
        if e.name in binds and e.kind == "topic"
        for key in (*_keys(e.name), "#", "*.*")
        if key not in binds[e.name]
    ]
    connection = await aiormq.connect(rabbitmq_server.url_of(user))
    queue = (await (await connection.channel()).queue_declare(f"{user}.spy", exclusive=True)).queue or ""
    for exchange, key in foreign:
        channel = await connection.channel()
        with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
            await channel.queue_bind(queue, exchange, routing_key=key)
    channel = await connection.channel()
    for exchange, keys in binds.items():
        for key in keys:
            await channel.queue_bind(queue, exchange, routing_key=key)
    await connection.close()


async def test_a_service_neither_hears_the_replies_of_others_nor_answers_for_them(
    rabbitmq_server: RabbitMQ, broker_url: str, fresh_database: FreshDatabase
) -> None:
    """It may bind any key of the exchange of replies, but it learns one only, at which it answers itself."""
    async with benches_on(rabbitmq_server, fresh_database) as benches:
        asker = await benches[GATEWAY].run(await benches[GATEWAY].build(GATEWAY))
        email, batches = [
            await (await aiormq.connect(rabbitmq_server.url_of(user))).channel()
            for user in (EMAIL, BATCH_PROCESSOR)
        ]
        requests = {EMAIL: await _take(email, EMAIL), BATCH_PROCESSOR: await _take(batches, BATCH_PROCESSOR)}
        questions = {
            service: asyncio.create_task(
                asker.messaging.rpc.ask(ListParked(), Deadline.after(20), service=service)
            )
            for service in requests
        }
        of_email, of_batches = [(await taken.get()).header.properties for taken in requests.values()]
        spy = (await batches.queue_declare("batch-processor.spy", exclusive=True)).queue or ""
        await batches.queue_bind(spy, REPLIES, routing_key=of_batches.reply_to or "")
        # The numbers of requests count up, so that of another request can be guessed.
        await _reply(batches, of_batches.reply_to, of_email.correlation_id, b"forged")
        await _reply(email, of_email.reply_to, of_email.correlation_id, b"of email")
        await _reply(batches, of_batches.reply_to, of_batches.correlation_id, b"of batches")
        assert await questions[EMAIL] == b"of email"
        assert await questions[BATCH_PROCESSOR] == b"of batches"
        heard = [(await batches.basic_get(spy, no_ack=True)).body for _ in range(3)]
        assert heard == [b"forged", b"of batches", b""]
        await email.connection.close()
        await batches.connection.close()


@pytest.mark.parametrize("user", SERVICES)
async def test_a_user_cannot_read_or_delete_queues_that_are_not_its_own(
    rabbitmq_server: RabbitMQ, broker_url: str, user: str
) -> None:
    connection = await aiormq.connect(rabbitmq_server.url_of(user))
    for other in set(SERVICES) - {user}:
        for queue in TOPOLOGIES[other].durable_queues:
            channel = await connection.channel()
            with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
                await channel.basic_get(queue.name)
            channel = await connection.channel()
            with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
                await channel.queue_delete(queue.name)
    for exchange in ("events", "commands", "rpc", "live", "replies"):
        channel = await connection.channel()
        with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
            await channel.exchange_delete(exchange)
    await connection.close()


async def test_a_retry_leads_only_to_queues_of_the_same_service(
    rabbitmq_server: RabbitMQ, broker_url: str
) -> None:
    """The CC header of a copy names the queue that it returns to, whichever its writer likes."""
    connection = await aiormq.connect(rabbitmq_server.url_of(EMAIL))
    channel = await connection.channel()
    message_id = str(new_id())
    properties = aiormq.spec.Basic.Properties(
        headers={"CC": ["gateway.events", "email.send"]}, message_id=message_id, delivery_mode=2
    )
    await channel.basic_publish(b"{}", exchange="retry.email", routing_key="2s", properties=properties)
    await until(lambda: _message_id(channel, "email.send", message_id))
    await connection.close()
    admin = await aiormq.connect(broker_url)
    channel = await admin.channel()
    assert (await channel.queue_declare("gateway.events", passive=True)).message_count == 0
    await admin.close()


async def _take(channel: AbstractChannel, service: str) -> asyncio.Queue[DeliveredMessage]:
    """Consume the requests to `service` and return them as they come."""
    queue = next(queue for queue in TOPOLOGIES[service].queues if queue.name == rpc_queue(service))
    await declare_rpc_queue(channel, queue)
    taken = asyncio.Queue[DeliveredMessage]()
    await channel.basic_consume(queue.name, taken.put, no_ack=True)
    return taken


async def _reply(
    channel: AbstractChannel, address: str | None, correlation_id: str | None, body: bytes
) -> None:
    properties = aiormq.spec.Basic.Properties(correlation_id=correlation_id)
    await channel.basic_publish(body, exchange=REPLIES, routing_key=address or "", properties=properties)


def _keys(exchange: str) -> set[str]:
    """Return the keys by which services get messages of a shared exchange."""
    topologies = TOPOLOGIES.values()
    led = {route.key for topology in topologies for route in topology.routes if route.source == exchange}
    bound = {key for topology in topologies for key in topology.binds.get(exchange, ())}
    return (led | bound) or {"x"}


async def _message_id(channel: aiormq.abc.AbstractChannel, queue: str, message_id: str) -> bool:
    found = await channel.basic_get(queue, no_ack=True)
    return found.header is not None and found.header.properties.message_id == message_id


async def _is_empty(connection: Connection) -> bool:
    return bool(await connection.fetchval("SELECT count(*) FROM outbox") == 0)
