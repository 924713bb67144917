"""The news of the ends of batches, written to the outbox in the transaction that stores the ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from types import MappingProxyType
from uuid import UUID

from batch_processor.batches import batch_repository
from batch_processor.batches.batch_repository import Trace
from batch_processor.batches.following import follow_up
from batch_processor.batches.life_cycle import StoredBatch
from batch_processor.batches.views import ShownBatch, Surroundings, show
from chassis import metrics, outbox, tracing
from chassis.broker.envelope import Outgoing, event
from chassis.postgres import Connection
from contracts.batches import BatchFinished, FollowUp


async def announce_finished(
    connection: Connection,
    candidates: Sequence[StoredBatch],
    *,
    results: Mapping[UUID, str] = MappingProxyType({}),
    traces: Mapping[UUID, Trace] = MappingProxyType({}),
) -> dict[UUID, ShownBatch]:
    """Write a `BatchFinished` to the outbox for each finished batch, and return them as they are shown.

    Abandoned batches have no listener. `results` of tasks and `traces` that the caller knows are not queried.
    The events have no results: hundreds of them would fill the memory of the service that hears of the ends.
    """
    finished = [batch for batch in candidates if batch.is_finished and batch.status != "abandoned"]
    if not finished:
        return {}
    known = {
        b.id: Surroundings(result_text=results[b.id])
        for b in finished
        if b.kind == "task" and b.succeeded and b.id in results
    }
    around = known | await batch_repository.surroundings(
        connection, [b for b in finished if b.id not in known]
    )
    views = {b.id: ShownBatch(show(b, around[b.id]), around[b.id].result_text) for b in finished}
    if not traces.keys() >= views.keys():
        traces = await batch_repository.traces_of(connection, list(views))
    messages: list[Outgoing] = []
    for batch in finished:
        # In the trace of the request that created the batch, whichever message ended it.
        with tracing.during(*traces[batch.id]) if traces[batch.id][0] else nullcontext():
            ended = BatchFinished(batch=views[batch.id].batch, owner_id=batch.owner_id)
            messages.append(event(ended, tenant=batch.owner_id))
            if batch.on_finished is not None:
                messages.append(follow_up(batch, FollowUp.model_validate_json(batch.on_finished)))
    await outbox.add(connection, messages)
    for batch in finished:
        metrics.BATCHES_FINISHED.labels(batch.status).inc()
        if batch.status == "completed" and batch.accepted_at and batch.finished_at:
            took = batch.finished_at - max(batch.accepted_at, batch.not_before or batch.accepted_at)
            metrics.BATCH_SECONDS.labels(batch.kind).observe(max(0.0, took.total_seconds()))
    return views
