"""Runs chunks in item processes as a worker does, without a database."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

from batch_processor.execution import reports
from batch_processor.execution.claims import Claim, Loaded, RemainingItems
from batch_processor.execution.isolated_run import IsolatedRun, ServiceCalls
from batch_processor.execution.item_process import Options
from batch_processor.execution.process_pool import ProcessPool
from batch_processor.execution.processes import Processes
from batch_processor.execution.running_chunk import ItemFailure, StoredItem
from batch_processor.operation import Operation
from chassis.broker.rpc import RpcClient

OPTIONS = Options("batch-processor", "ERROR", "json", 128 << 20)


def claim(rest: RemainingItems) -> Claim:
    now = datetime.now(UTC)
    return Claim(
        UUID(int=1),
        0,
        1,
        rest.lost,
        rest.suspect,
        rest.attempt,
        rest.first_position,
        rest.last_position,
        None,
        now,
        "ann",
        "harmful",
        "running",
        now,
        None,
        None,
        True,
        now,
    )


@dataclass
class ChunkBench:
    """Runs chunks as a worker does, until all items have ended, without a database."""

    pool: ProcessPool
    results: dict[int, str] = field(default_factory=dict)
    failures: dict[int, ItemFailure] = field(default_factory=dict)
    calls: ServiceCalls = field(default_factory=lambda: ServiceCalls(cast(RpcClient, None), Processes(1)))

    async def finish(self, operation: Operation, payloads: Sequence[str]) -> None:
        items = [StoredItem(position, payload) for position, payload in enumerate(payloads)]
        waiting = deque([RemainingItems(0, len(items) - 1, range(len(items)), len(items), attempt=1)])
        while waiting:
            rest = waiting.popleft()
            assert rest.positions is not None
            chunk = Loaded(claim(rest), [items[position] for position in rest.positions])
            report = reports.of_lost(chunk)
            if report is None:
                run = self.run(operation, chunk)
                await run.execute()
                report = reports.of_ended(chunk.claim, run, None)
            assert report.fate == "done"
            outcomes = report.outcomes
            ended = {*outcomes.positions, *(failure.position for failure in outcomes.failures)}
            assert not ended & {*self.results, *self.failures}
            self.results.update(zip(outcomes.positions, outcomes.results, strict=True))
            self.failures.update({failure.position: failure for failure in outcomes.failures})
            waiting.extend(report.rests)

    def run(self, operation: Operation, chunk: Loaded) -> IsolatedRun:
        return IsolatedRun(
            operation,
            chunk.items,
            origin=chunk.claim.origin,
            one_by_one=chunk.claim.suspect,
            is_first=chunk.claim.is_first,
            pool=self.pool,
            calls=self.calls,
        )


def of(chunk: Sequence[str]) -> Loaded:
    items = [StoredItem(position, payload) for position, payload in enumerate(chunk)]
    return Loaded(claim(RemainingItems(0, len(items) - 1, None, len(items), attempt=1)), items)
