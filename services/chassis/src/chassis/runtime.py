"""The base of every service: database, broker, outbox relay, health; opened and closed in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Self, TypeAlias

from chassis import allocator, inbox, logging, metrics, migrations, queries, redaction, spans
from chassis.broker import bundles
from chassis.broker.answering import Answer, RpcServer
from chassis.broker.consumer import GROUP_BYTES, Consumer
from chassis.broker.excess import ExcessTraffic
from chassis.broker.handlers import Handler
from chassis.broker.messaging import Messaging
from chassis.database_outages import AWAY
from chassis.deadlines import Deadline
from chassis.errors import DatabaseUnavailable
from chassis.health import STARTUP, Health
from chassis.outbox import OutboxRelay
from chassis.parked import Parked, ParkedKeeper, park_unpublishable
from chassis.postgres import DATABASE_FAILURES, TRANSACTION_CONFLICTS, Postgres
from chassis.settings import Settings
from chassis.supervision import Tasks
from chassis.watchdog import Watchdog
from contracts import addresses
from contracts.message import Message, Request
from contracts.topology import TOPOLOGIES, rpc_queue

log = logging.get(__name__)

Work: TypeAlias = Callable[[], Awaitable[object]]

_LOOK_EVERY_S = 5
_CLEAN_EVERY_S = 600
_CLOSE_S = 5
_MOMENT_S = 1


class ServiceRuntime:
    """The parts shared by all services. `package` names the folder of migrations and queries.

    Opening never waits: a service without its database or broker is alive but not ready, and reports why.
    """

    def __init__(self, settings: Settings, *, service: str, package: str) -> None:
        queries.load("chassis", package)
        self.settings = settings
        self.service = service
        self._package = package
        self.health = Health()
        self.tasks = Tasks()
        self.postgres = Postgres(
            partial(settings.current_secret, "postgres_dsn"), size=settings.postgres_pool_size
        )
        self.messaging = Messaging(partial(settings.current_secret, "rabbitmq_url"), TOPOLOGIES[service])
        self.relay = OutboxRelay(self.postgres, self.messaging.publisher, park=park_unpublishable)
        self._traffic = ExcessTraffic()
        self.parked = Parked(self.postgres, replayed=self.relay.wake)
        self.messaging.listen(ParkedKeeper(service, self.parked).attach)
        self._watchdog = Watchdog()
        addresses.refuse_domains(settings.refused_mail_domains.split(","))
        bundles.Travel.together = settings.message_bundles
        metrics.describe_build(f"tickwire-{service}")
        self._starting: str | None = "starting"
        # The ops listener may be asked before anything is opened.
        self.health.add(STARTUP, lambda: self._starting)
        self._on_database: list[Callable[[], Awaitable[None]]] = []
        self._repeated: list[tuple[str, Work, float]] = []
        self.repeat("inbox cleaning", partial(inbox.clean, self.postgres), every_s=_CLEAN_EVERY_S)
        self.repeat("parked messages", self.parked.measure, every_s=_LOOK_EVERY_S)
        self.repeat("removal of parked messages", self.parked.clean, every_s=_CLEAN_EVERY_S)

    def on_database(self, hook: Callable[[], Awaitable[None]]) -> None:
        """Run `hook` once the database is available and migrated, before any message is consumed.

        A hook that fails because the database is unavailable is run again; those that succeeded are not.
        """
        self._on_database.append(hook)

    def repeat(self, name: str, work: Work, *, every_s: float) -> None:
        """Repeat `work` every `every_s` seconds once the database is available; call this before `open`.

        Work that fails because the database is unavailable is tried again the next time.
        """
        self._repeated.append((name, work, every_s))

    def consume(
        self,
        queue: str,
        handlers: Mapping[type[Message], Handler],
        *,
        concurrency: int = 1,
        prefetch: int = 200,
        deadline_s: float = 60,
        most_of_owner: int | None = None,
        group_bytes: int = GROUP_BYTES,
    ) -> None:
        """Handle the messages of `queue`, as `Consumer` does; call this before `open`."""
        self.parked.expect(queue)
        self.messaging.consume(
            Consumer(
                queue,
                handlers,
                service=self.service,
                postgres=self.postgres,
                publisher=self.messaging.publisher,
                concurrency=concurrency,
                prefetch=prefetch,
                deadline_s=deadline_s,
                most_of_owner=most_of_owner,
                traffic=self._traffic,
                group_bytes=group_bytes,
            )
        )

    def answer(self, handlers: Mapping[type[Request], Answer]) -> None:
        """Answer requests to this service; call this before `open`."""
        name = rpc_queue(self.service)
        queue = next(queue for queue in self.messaging.topology.queues if queue.name == name)
        self.messaging.answer(
            RpcServer(queue, {**handlers, **self.parked.answers()}, publisher=self.messaging.publisher)
        )

    async def open(self) -> None:
        """Start everything in the background."""

        async def drain_at_stop() -> None:
            # While requests are still being answered: the listeners close only after them.
            await self.messaging.drain(await self.health.stopping())

        spans.configure(
            service=self.service, endpoint=self.settings.otlp_endpoint, ratio=self.settings.trace_ratio
        )
        self.health.add("database", self.postgres.check)
        self.health.add_vital("tasks", self.tasks.check)
        metrics.READY.set_function(lambda: not self.health.reasons())
        self.tasks.start("startup", self._start())
        self.tasks.start("drain", drain_at_stop())
        self.tasks.supervise("loop watchdog", self._watchdog.run)
        self.tasks.supervise("unused memory", allocator.give_back_forever)
        self.tasks.supervise("lines left out", logging.report_left_out)

    async def close(self) -> None:
        """Report not ready, stop consuming, settle the messages at work, empty the outbox, close.

        All steps share one grace period, which began when the process was asked to stop; the last ones get
        at least a second each, even after it. A step that fails does not keep the others from running.
        """
        deadline = self.health.stop(self.settings.shutdown_grace_s)
        async with AsyncExitStack() as last_first:
            last_first.push_async_callback(asyncio.to_thread, spans.close)
            last_first.push_async_callback(lambda: self.postgres.close(_at_most(_CLOSE_S, deadline)))
            last_first.push_async_callback(self.messaging.close)
            last_first.push_async_callback(self.tasks.close)
            last_first.push_async_callback(self._flush, deadline)
            await self.messaging.drain(deadline)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _start(self) -> None:
        await self.postgres.open()
        is_prepared = False
        while not is_prepared:
            try:
                await migrations.migrate_at(self.settings.current_secret("postgres_dsn"), self._package)
                while self._on_database:
                    await self._on_database[0]()
                    del self._on_database[0]
                is_prepared = True
            except (DatabaseUnavailable, *AWAY, *TRANSACTION_CONFLICTS) as error:
                self._starting = f"preparing the database: {redaction.safe_message(error)}"
                log.warning("waiting for the database", reason=redaction.safe_message(error))
                await asyncio.sleep(1)
        # The server caches for each connection all that it has used, and migrations use much only once.
        await self.postgres.renew()
        self.tasks.supervise("database watch", self.postgres.watch)
        self.tasks.supervise("outbox relay", self.relay.run)
        self.tasks.supervise("outbox retries", self.relay.run_failed)
        for name, work, every_s in self._repeated:
            self.tasks.supervise(name, partial(_repeat_forever, name, work, every_s))
        self.messaging.start(self.tasks, self.health)
        self._starting = None
        log.info("started")

    async def _flush(self, deadline: Deadline) -> None:
        try:
            async with asyncio.timeout(_at_most(_CLOSE_S, deadline)):
                await self.relay.flush()
        except DATABASE_FAILURES as error:
            # The rows are committed: the next start, or another replica, publishes them.
            log.warning("the outbox was not emptied", reason=redaction.safe_message(error))


async def _repeat_forever(name: str, work: Work, every_s: float) -> None:
    while True:
        try:
            await work()
        except DATABASE_FAILURES as error:
            log.warning("task waits for the database", task=name, reason=redaction.safe_message(error))
        await asyncio.sleep(every_s)


def _at_most(seconds: float, deadline: Deadline) -> float:
    return max(_MOMENT_S, min(seconds, deadline.remaining_s()))
