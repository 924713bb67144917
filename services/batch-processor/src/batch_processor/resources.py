"""The parts of batch-processor: made once, opened and closed in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from batch_processor import consumers
from batch_processor.answers import Answers
from batch_processor.contexts import ContextFactory
from batch_processor.coordinator import Coordinator, Windows
from batch_processor.intake import Intake
from batch_processor.operation import Operation
from batch_processor.processes import Processes
from batch_processor.progress_publisher import ProgressPublisher
from batch_processor.settings import BatchProcessorSettings
from batch_processor.worker import ChunkTiming, Worker
from chassis import outbox
from chassis.broker.envelope import event
from chassis.runtime import ServiceRuntime
from contracts import batches
from contracts.topology import BATCH_PROCESSOR

# A chunk gives itself up long before: the broker takes a message back after 30 minutes.
_CHUNK_DEADLINE_S = 1500
# Millions of items are compared with each other before they start.
_INTAKE_DEADLINE_S = 300


class Resources:
    """The service's parts, wired for its roles."""

    def __init__(self, settings: BatchProcessorSettings, operations: Mapping[str, Operation]) -> None:
        self.settings = settings
        self.runtime = ServiceRuntime(settings, service=BATCH_PROCESSOR, package="batch_processor")
        self.operations = operations
        self.processes = Processes(settings.process_pool_size)
        self.progress = ProgressPublisher(self.runtime.postgres, self.runtime.messaging.publisher)
        self.intake = Intake(self.operations, chunk_size=settings.chunk_size)
        self.coordinator = self._coordinator()
        self.worker = self._worker()
        self.runtime.on_database(self._announce)
        if "coordinator" in settings.roles:
            self._coordinate()
        if "worker" in settings.roles:
            self._work()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Start everything in the background; close it in reverse order when the block ends."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.processes.close)
            await stack.enter_async_context(self.runtime)
            self.runtime.tasks.supervise("progress", self.progress.run)
            # First at a stop: begin no more chunks and give back those in hand.
            stack.callback(self.worker.stop)
            stack.callback(self.runtime.health.stop, self.settings.shutdown_grace_s)
            yield

    def _coordinator(self) -> Coordinator:
        settings = self.settings
        windows = Windows(
            per_batch=settings.batch_window,
            in_all=settings.dispatch_window,
            lease_s=settings.lease_s,
            upload_expires_s=settings.upload_expires_s,
            retention_days=settings.retention_days,
        )
        return Coordinator(
            self.runtime.postgres,
            self.runtime.relay,
            self.intake,
            progress=self.progress,
            windows=windows,
        )

    def _worker(self) -> Worker:
        return Worker(
            self.runtime.postgres,
            self.runtime.relay,
            self.operations,
            contexts=ContextFactory(self.runtime.messaging.rpc, self.processes.compute),
            progress=self.progress,
            finished=self.coordinator.wake,
            timing=ChunkTiming(lease_s=self.settings.lease_s),
        )

    def _coordinate(self) -> None:
        self.runtime.consume(
            batches.INTAKE,
            consumers.intake(self.intake, committed=self._stored),
            concurrency=self.settings.intake_concurrency,
            prefetch=32,
            deadline_s=_INTAKE_DEADLINE_S,
        )
        self.runtime.answer(consumers.answers(Answers(self.runtime.postgres)))
        self.runtime.on_database(self._start_coordinator)

    def _work(self) -> None:
        self.runtime.consume(
            batches.CHUNK,
            consumers.chunk(self.worker),
            concurrency=self.settings.worker_concurrency,
            prefetch=self.settings.worker_concurrency * 2,
            deadline_s=_CHUNK_DEADLINE_S,
        )

    async def _start_coordinator(self) -> None:
        tasks = self.runtime.tasks
        tasks.supervise("dispatch", self.coordinator.dispatch_forever)
        tasks.supervise("housekeeping", self.coordinator.keep_forever)
        tasks.supervise("removal", self.coordinator.remove_forever)

    async def _announce(self) -> None:
        offered = [
            batches.Operation(
                name=o.name,
                description=o.description,
                item_schema=o.item_schema,
                required_scopes=sorted(o.required_scopes),
            )
            for o in self.operations.values()
        ]
        async with self.runtime.postgres.transaction() as connection:
            await outbox.add(connection, [event(batches.OperationsAnnounced(operations=offered))])

    def _stored(self) -> None:
        self.runtime.relay.wake()
        for batch in self.intake.take_changed():
            self.progress.note(batch)
        self.coordinator.wake()
        self.coordinator.wake_keeping()
