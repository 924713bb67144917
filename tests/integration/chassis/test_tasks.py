"""Long-lived tasks survive unexpected errors; one that dies all the same ends the process."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import aio_pika
import pytest
from prometheus_client import REGISTRY
from yarl import URL

from batch_processor.operations import discover
from batch_processor.resources import Resources as BatchProcessor
from batch_processor.settings import BatchProcessorSettings
from chassis import supervision
from chassis.broker import rabbitmq
from chassis.broker.envelope import Delivery, command, new_id
from chassis.broker.handlers import Direct
from chassis.broker.incoming import Incoming
from chassis.broker.rabbitmq import Link
from chassis.broker.settling import Settler
from chassis.supervision import Tasks, keep_going
from contracts.batches import INTAKE, CancelBatch
from contracts.topology import BATCH_PROCESSOR
from emailer.resources import Resources as Email
from emailer.sending import dispatcher
from emailer.settings import EmailSettings
from gateway.resources import Resources as Gateway
from gateway.settings import GatewaySettings
from native.ports import Ports
from stock_data.resources import Resources as StockData
from stock_data.settings import StockDataSettings
from support.bench import Bench
from support.databases import FreshDatabase
from support.waiting import until

Loop = Callable[[], Awaitable[None]]

# What every service has, and what is its own.
_SHARED = {
    "database watch",
    "inbox cleaning",
    "lines left out",
    "link consume",
    "link publish",
    "look for alarms",
    "loop watchdog",
    "outbox relay",
    "outbox retries",
    "parked messages",
    "queue statistics",
    "removal of parked messages",
    "unused memory",
}
SERVICES: Mapping[str, tuple[Callable[[dict[str, Any]], Any], set[str]]] = {
    "gateway": (
        lambda values: Gateway(GatewaySettings.model_validate({**values, "key_pepper": "a pepper of tests"})),
        {
            "chat catch-up",
            "clock of the connections",
            "consumer gateway.events",
            "freshness of quotes",
            "keys of the connections",
            "last use of keys",
            "presence",
            "removal of old API keys",
            "removal of old acceptances",
            "removal of old audit entries",
            "removal of old messages",
            "removal of old uploads",
            "who joins and leaves",
            "freshness of bars",
            "alerts catch-up",
            "age of the last backup",
            "waiting parcels",
            "size of waiting parcels",
            "exchange of limits",
            "leases of limits",
            "removal of old windows of limits",
            "webhooks",
            "encryption of webhook secrets",
            "removal of old deliveries",
        },
    ),
    "stock-data": (
        lambda values: StockData(StockDataSettings.model_validate(values)),
        {"instrument index", "replay", "removal of old alerts"},
    ),
    "email": (
        lambda values: Email(EmailSettings.model_validate(values)),
        {
            "consumer email.send",
            "consumer email.bulk",
            "consumer email.excess",
            "counts of mails",
            "records of sender domains",
            "removal of old mails",
            "removal of old uploads",
        },
    ),
    "batch-processor": (
        lambda values: BatchProcessor(BatchProcessorSettings.model_validate(values), discover()),
        {
            "admission",
            "lookout",
            "consumer batch-processor.intake",
            "maintenance",
            "leases",
            "progress",
            "promotion",
            "pull",
            "removal",
            "reports 0",
            "reports 1",
            "validation, smallest first",
            "validation, oldest first",
            "sources",
            "schedules",
            "runs of schedules",
            "removal of runs",
            "items",
        },
    ),
}
DELIVERY = {"claiming of mails", "recording of outcomes", "leases of mails", "delivery of mails"}


def failures(name: str) -> float:
    return REGISTRY.get_sample_value("tickwire_background_task_failures_total", {"task": name}) or 0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 0.01)


def failing_once(loop: Loop, error: BaseException) -> Loop:
    begun = 0

    async def run() -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise error
        await loop()

    return run


@pytest.mark.parametrize(
    "error",
    [KeyError("unexpected"), ExceptionGroup("several", [ValueError("one")]), asyncio.CancelledError()],
    ids=lambda error: type(error).__name__,
)
async def test_a_loop_goes_on_after_an_unexpected_error(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    running = asyncio.Event()

    async def loop() -> None:
        running.set()
        await asyncio.Event().wait()

    before, tasks = failures("a loop"), Tasks()
    tasks.supervise("a loop", failing_once(loop, error))
    await asyncio.wait_for(running.wait(), 5)
    assert (tasks.check(), failures("a loop") - before) == (None, 1)
    assert "a loop" in "".join(capsys.readouterr())
    await tasks.close()


async def test_a_loop_that_ends_is_begun_again() -> None:
    before, rounds = failures("short"), 0

    async def loop() -> None:
        nonlocal rounds
        rounds += 1

    tasks = Tasks()
    tasks.supervise("short", loop)
    await until(lambda: rounds >= 3)
    await tasks.close()
    assert failures("short") - before >= 2


async def test_the_pause_grows_with_each_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "LONGEST_PAUSE_S", 0.04)
    pauses: list[float] = []
    pause = asyncio.sleep

    async def note(seconds: float) -> None:
        if asyncio.current_task() is not keeping:
            await pause(seconds)
            return
        pauses.append(seconds)
        await pause(0)

    monkeypatch.setattr(asyncio, "sleep", note)

    async def loop() -> None:
        raise KeyError("always")

    keeping = asyncio.create_task(keep_going("hopeless", loop))
    while len(pauses) < 5:
        await pause(0)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert pauses[:5] == [0.01, 0.02, 0.04, 0.04, 0.04]


async def test_a_cancellation_ends_a_loop() -> None:
    keeping = asyncio.create_task(keep_going("cancelled", asyncio.Event().wait))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(keeping, 5)


@pytest.mark.parametrize("service", SERVICES)
async def test_every_loop_of_a_service_outlives_an_unexpected_error(
    service: str, broker_url: str, fresh_database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, own = SERVICES[service]
    names = _SHARED | own | (DELIVERY if service == "email" else set())
    before = {name: failures(name) for name in names}
    keep, start, started = Tasks.supervise, Tasks.start, set[str]()

    def keep_broken(self: Tasks, name: str, loop: Loop) -> None:
        keep(self, name, failing_once(loop, KeyError("unexpected")))

    def note(self: Tasks, name: str, coroutine: Coroutine[Any, Any, None]) -> None:
        started.add(name)
        start(self, name, coroutine)

    def keep_going_broken(name: str, loop: Loop) -> Coroutine[Any, Any, None]:
        return keep_going(name, failing_once(loop, KeyError("unexpected")))

    monkeypatch.setattr(Tasks, "supervise", keep_broken)
    monkeypatch.setattr(Tasks, "start", note)
    monkeypatch.setattr(dispatcher, "keep_going", keep_going_broken)
    running = build(
        {"rabbitmq_url": broker_url, "postgres_dsn": await fresh_database(), "shutdown_grace_s": 2}
    )
    health = running.runtime.health
    async with running.open():
        await until(lambda: health.reasons() == {}, what=lambda: str(health.reasons()))
        await until(lambda: all(failures(name) > before[name] for name in names))
        assert health.failures() == {}
        # What is not kept has an end of its own.
        ending = {"startup", "drain"} | ({"delivery", "raw mails"} if service == "email" else set())
        assert started - _SHARED - own == ending


async def test_the_messages_of_a_failed_consumer_come_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    settled = asyncio.Event()
    acknowledge = Settler.acknowledge

    async def handle(_: Delivery[CancelBatch]) -> None:
        taken.append(1)

    async def fail_first(settler: Settler, incoming: Incoming) -> None:
        if len(taken) == 1:
            raise KeyError("unexpected")
        await acknowledge(settler, incoming)
        settled.set()

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {CancelBatch: Direct(handle)})
    monkeypatch.setattr(Settler, "acknowledge", fail_first)
    await bench.run(worker)
    await worker.messaging.publisher.publish(command(CancelBatch(batch_id=new_id(), owner_id="ann")))
    await asyncio.wait_for(settled.wait(), 20)
    assert len(taken) == 2


async def test_a_link_takes_the_end_of_the_stream_during_its_set_up_for_a_broker_that_is_away(
    broker_url: str,
) -> None:
    tries = 0

    async def set_up(_: Link) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            # What aiormq raises where it expects a frame.
            raise StopAsyncIteration

    link = Link(broker_url, name="test", on_open=set_up)
    running = asyncio.create_task(link.run())
    try:
        assert await link.wait_connected(10)
        assert tries == 2
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await link.close()


async def test_a_link_leaves_no_connection_behind_when_its_set_up_fails_unexpectedly(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections: list[Any] = []
    connect = rabbitmq.connect

    async def note(url: URL) -> aio_pika.Connection:
        made = await connect(url)
        connections.append(made)
        return made

    async def set_up(_: Link) -> None:
        if len(connections) == 1:
            raise KeyError("unexpected")

    monkeypatch.setattr(rabbitmq, "connect", note)
    link = Link(broker_url, name="test", on_open=set_up)
    tasks = Tasks()
    tasks.supervise("link", link.run)
    try:
        assert await link.wait_connected(10)
        assert connections[0] is not connections[1]
        assert connections[0].is_closed
        assert link.check() is None
    finally:
        await tasks.close()
        await link.close()


_DYING = """
import asyncio
from chassis import asgi, logging
from chassis.health import Health
from chassis.ops import ops_app
from chassis.supervision import Tasks

logging.configure(service="dying", level="INFO", style="json")
health, tasks = Health(), Tasks()
health.add_vital("tasks", tasks.check)
ops = ops_app(health)

async def die():
    raise RuntimeError("out of luck")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        tasks.start("doomed", die())
    await ops(scope, receive, send)

listener = asgi.Listener(app, "127.0.0.1", {port})
asgi.serve([listener], health=health, delay_s=0, grace_s=1)
"""


async def test_a_dead_vital_task_ends_the_process_and_says_so() -> None:
    code = _DYING.format(port=Ports.free().gateway)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(60):
        out, error = await process.communicate()
    assert process.returncode == 1, (out, error)
    last = error.splitlines()[-1]
    assert last == b"exiting to be restarted: doomed died: RuntimeError: out of luck"
