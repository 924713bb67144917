"""The parts of batch-processor: made once, opened and closed in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from batch_processor import consumers
from batch_processor.backups.answers import BackupAnswers
from batch_processor.batches.progress_publisher import ProgressPublisher
from batch_processor.coordination.coordinator import Coordinator, Windows
from batch_processor.coordination.lookout import Lookout
from batch_processor.execution.chunks import ChunkRun
from batch_processor.execution.claims import Claim
from batch_processor.execution.contexts import ContextFactory
from batch_processor.execution.isolated_run import IsolatedRun, ServiceCalls, count_deaths_of
from batch_processor.execution.item_process import Options
from batch_processor.execution.process_pool import ProcessPool
from batch_processor.execution.processes import Processes
from batch_processor.execution.running_chunk import RunningChunk, StoredItem
from batch_processor.execution.settlement import Settlement
from batch_processor.execution.shared_runs import SharedRuns
from batch_processor.execution.worker import LOOKOUT_POLL_S, POLL_S, ChunkTiming, Worker
from batch_processor.intake.handlers import Intake
from batch_processor.intake.validation import ORDERS, Validation
from batch_processor.limits import rules
from batch_processor.limits.admission import ChunkAdmission
from batch_processor.limits.rules import LimitBook
from batch_processor.operation import Operation
from batch_processor.pauses.answers import PauseAnswers
from batch_processor.reading.answers import BatchAnswers
from batch_processor.schedules.answers import ScheduleAnswers
from batch_processor.schedules.firing import ScheduleFiring
from batch_processor.settings import BatchProcessorSettings
from batch_processor.sources.copying import Sources
from chassis import outbox
from chassis.broker.envelope import event
from chassis.egress.client import GuardedClient
from chassis.egress.destinations import InternalTargets
from chassis.runtime import ServiceRuntime
from contracts import batches
from contracts.operations import Operation as OfferedOperation
from contracts.operations import OperationsAnnounced
from contracts.topology import BATCH_PROCESSOR

# Transactions that store results concurrently.
_REPORTERS = 2
# A service that cannot start a process reports that in its log and metrics, and does not hang.
_FIRST_PROCESS_S = 20


class Resources:
    """The service's parts, wired for its roles.

    Without `isolated` operations run in this process, where a test can see what they do.
    """

    def __init__(
        self,
        settings: BatchProcessorSettings,
        operations: Mapping[str, Operation],
        *,
        isolated: bool = True,
    ) -> None:
        self.settings = settings
        self.runtime = ServiceRuntime(settings, service=BATCH_PROCESSOR, package="batch_processor")
        self.operations = operations
        self.processes = Processes(
            settings.process_pool_size, memory_bytes=settings.item_memory_mb * 1024 * 1024
        )
        self._has_processes = isolated and "worker" in settings.roles
        self.item_processes = ProcessPool(settings.worker_concurrency, _options(settings))
        self._shared_runs = SharedRuns(self._run_alone)
        relay, lease_s, postgres = self.runtime.relay, settings.lease_s, self.runtime.postgres
        upload_expires_s, publisher = settings.upload_expires_s, self.runtime.messaging.publisher
        self.progress = ProgressPublisher(postgres, publisher, upload_expires_s=upload_expires_s)
        self.limits = LimitBook(operations, rules.parse(settings.limits))
        self.intake = Intake(self.operations, chunk_size=settings.chunk_size, limits=self.limits)
        self.admission = ChunkAdmission(postgres, operations, self.limits, ready=self._wake_worker)
        settlement = Settlement(postgres, relay, self.progress, lease_s=lease_s)
        self.worker = Worker(
            postgres,
            settlement,
            operations,
            runs=self._run_isolated if isolated else self._run_here,
            slots=settings.worker_concurrency,
            timing=ChunkTiming(lease_s=lease_s),
            poll_s=LOOKOUT_POLL_S if "coordinator" in settings.roles else POLL_S,
            has_room=self.admission.wake,
        )
        self.coordinator = Coordinator(
            self.runtime.postgres,
            relay,
            self.intake,
            progress=self.progress,
            windows=Windows(
                lease_s=lease_s,
                upload_expires_s=upload_expires_s,
                retention_days=settings.retention_days,
            ),
            ready=self._promoted,
        )
        self.runtime.on_database(self._announce)
        if "coordinator" in settings.roles:
            self._coordinate()
        if "worker" in settings.roles:
            self.runtime.on_database(self._start_worker)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Start everything in the background; close it in reverse order when the block ends."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.processes.close)
            stack.push_async_callback(self.item_processes.close)
            if self._has_processes:
                self.item_processes.grow()
            await stack.enter_async_context(self.runtime)
            self.runtime.tasks.supervise("progress", self.progress.run)
            if self._has_processes:
                self.runtime.tasks.supervise("items", self.item_processes.watch_forever)
                # The server that processes are forked from takes a second to start; no item must wait for it.
                await self.item_processes.wait_for_first(_FIRST_PROCESS_S)
            # The first step of a stop: begin no more chunks and return the claimed ones.
            stack.push_async_callback(self.worker.close, self.settings.shutdown_grace_s / 2)
            stack.callback(self.runtime.health.stop, self.settings.shutdown_grace_s)
            yield

    def _coordinate(self) -> None:
        postgres, names = self.runtime.postgres, self.operations.keys()
        self.validation = Validation(postgres, self.intake.begin, operations=names, begun=self._stored)
        self.sources = Sources(postgres, self.intake, operations=names, begun=self._stored)
        runs_kept, wake_relay = self.settings.schedule_runs_kept, self.runtime.relay.wake
        self.firing = ScheduleFiring(
            self.runtime.postgres,
            runs_kept=runs_kept,
            retention_days=self.settings.retention_days,
            fired=wake_relay,
        )
        schedules = ScheduleAnswers(
            self.runtime.postgres,
            most_of_owner=self.settings.schedules_per_owner,
            runs_kept=runs_kept,
            fired=wake_relay,
        )
        self.lookout = Lookout(
            postgres,
            upload_expires_s=self.settings.upload_expires_s,
            ready_from=lambda: self.coordinator.ready_from,
            found={
                "ready": self.worker.wake,
                "due": self.coordinator.wake,
                "orders": self.coordinator.wake_for_orders,
                "expired": self.coordinator.wake_for_expired,
                "limited": self.admission.wake,
                "uploads": self.validation.wake,
                "copies": self.sources.wake,
                "schedules": self.firing.wake,
            },
        )
        pauses = PauseAnswers(self.runtime.postgres, changed=self.coordinator.wake_for_pauses)
        self.runtime.consume(
            batches.INTAKE,
            consumers.intake(self.intake, self.firing, committed=self._stored),
            concurrency=self.settings.intake_concurrency,
            prefetch=32,
        )
        answers = BatchAnswers(postgres, self.limits, upload_expires_s=self.settings.upload_expires_s)
        backups = BackupAnswers(postgres)
        self.runtime.answer(consumers.answers(answers, schedules, pauses, backups))
        self.runtime.on_database(self.admission.gate)
        self.runtime.on_database(self._start_coordinator)

    async def _start_coordinator(self) -> None:
        tasks = self.runtime.tasks
        tasks.supervise("lookout", self.lookout.look_forever)
        tasks.supervise("promotion", self.coordinator.promote_forever)
        tasks.supervise("maintenance", self.coordinator.maintain_forever)
        tasks.supervise("admission", self.admission.admit_forever)
        tasks.supervise("removal", self.coordinator.remove_forever)
        tasks.supervise("sources", self.sources.copy_forever)
        tasks.supervise("schedules", self.firing.fire_forever)
        tasks.supervise("runs of schedules", self.firing.follow_forever)
        tasks.supervise("removal of runs", self.firing.clean_forever)
        for order in ORDERS:
            tasks.supervise(f"validation, {order} first", partial(self.validation.check_forever, order))

    def _run_isolated(self, claim: Claim, operation: Operation, items: Sequence[StoredItem]) -> RunningChunk:
        shared = self._shared_runs.join(claim, operation, items)
        return shared or self._run_alone(claim, operation, items)

    def _run_alone(self, claim: Claim, operation: Operation, items: Sequence[StoredItem]) -> RunningChunk:
        return IsolatedRun(
            operation,
            items,
            origin=claim.origin,
            one_by_one=claim.suspect,
            is_first=claim.is_first,
            pool=self.item_processes,
            calls=ServiceCalls(self.runtime.messaging.rpc, self.processes),
        )

    def _run_here(self, claim: Claim, operation: Operation, items: Sequence[StoredItem]) -> RunningChunk:
        calls = ServiceCalls(self.runtime.messaging.rpc, self.processes)
        client = GuardedClient(InternalTargets.parse(self.settings.internal_targets))
        factory = ContextFactory(calls.ask, self.processes.compute, client.fetch)
        context = factory.of_chunk(claim.origin)
        return ChunkRun(operation, items, attempt=claim.attempt, context=context, one_by_one=claim.suspect)

    async def _start_worker(self) -> None:
        count_deaths_of(self.operations)
        tasks = self.runtime.tasks
        tasks.supervise("pull", self.worker.pull_forever)
        tasks.supervise("leases", self.worker.keep_forever)
        for number in range(_REPORTERS):
            tasks.supervise(f"reports {number}", self.worker.report_forever)

    async def _announce(self) -> None:
        offered = [
            OfferedOperation(
                name=o.name,
                description=o.description,
                item_schema=o.item_schema,
                required_scopes=sorted(o.required_scopes),
            )
            for o in self.operations.values()
        ]
        async with self.runtime.postgres.transaction() as connection:
            await outbox.add(connection, [event(OperationsAnnounced(operations=offered))])

    def _wake_worker(self) -> None:
        self.worker.wake()

    def _promoted(self) -> None:
        self.worker.wake()
        self.admission.wake()

    def _stored(self) -> None:
        for batch in self.intake.take_changed():
            self.progress.note(batch)
            if self.limits.gate_of(batch):
                self.admission.wake()
        # Each of the parts below would query the database many times a second for nothing.
        concern = self.intake.concern
        if concern == "nobody":
            return
        self.worker.wake()
        if concern == "worker":
            return
        self.runtime.relay.wake()
        self.coordinator.wake()
        self.lookout.wake()
        self.validation.wake()
        self.sources.wake()


def _options(settings: BatchProcessorSettings) -> Options:
    """Return the options of the processes that run items."""
    return Options(
        service=BATCH_PROCESSOR,
        log_level=settings.log_level,
        log_format=settings.log_format,
        memory_bytes=settings.item_memory_mb * 1024 * 1024,
        internal_targets=settings.internal_targets,
    )
