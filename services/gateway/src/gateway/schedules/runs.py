"""Runs of schedules that have fired: accepted like any task or batch, if their makers still may."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from functools import partial

import orjson
from pydantic import ValidationError

from chassis import logging, metrics, outbox, plain, validation
from chassis.broker import envelope
from chassis.broker.envelope import Delivery, Outgoing
from chassis.errors import Forbidden, InvalidInput
from chassis.postgres import Connection
from contracts.json_texts import member
from contracts.schedules import GIVEN_UP_AFTER_S, RefuseRun, ScheduleFired
from gateway.acceptance import repository as acceptances
from gateway.acceptance.acceptor import new_acceptance
from gateway.acceptance.repository import Acceptance, Work
from gateway.batches import commands
from gateway.batches.operations import OperationCatalogue
from gateway.errors import UnknownOperation
from gateway.http.principal import Principal
from gateway.http.replies import document
from gateway.identity import authority
from gateway.identity.authority import Maker
from gateway.identity.key_repository import known_scopes
from gateway.schedules.inputs import TemplateInput

log = logging.get(__name__)

_GIVEN_UP = timedelta(seconds=GIVEN_UP_AFTER_S)


class ScheduledRuns:
    """Accepts runs in the transaction that handles their events; reports refused runs to batch-processor."""

    def __init__(self, catalogue: OperationCatalogue) -> None:
        self._catalogue = catalogue
        # Very many schedules are due at the same time of the clock, and a template may take 50 ms. A thread
        # of its own: a connection is held meanwhile, and must not wait for requests of owners.
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="templates")

    async def accept(self, connection: Connection, deliveries: Sequence[Delivery[ScheduleFired]]) -> None:
        """Make the batches and tasks of those runs whose makers may make them now."""
        fired = [delivery.message for delivery in deliveries]
        makers = {
            run.run_id: Maker(run.owner_id, run.made_by, known_scopes(run.scopes or ())) for run in fired
        }
        principals = await authority.principals(connection, set(makers.values()))
        catalogue = self._catalogue.on(connection)
        works: list[Work] = []
        refused: list[RefuseRun] = []
        for run in fired:
            try:
                works.append(await self._work(catalogue, run, principals.get(makers[run.run_id])))
            except (Forbidden, InvalidInput, UnknownOperation, _Unusable) as error:
                log.warning("schedule run refused", run=str(run.run_id), reason=error.detail)
                refuse = RefuseRun(
                    run_id=run.run_id, owner_id=run.owner_id, code=error.code, detail=error.detail
                )
                refused.append(refuse)
        if works:
            accepted = await acceptances.accept(connection, works)
            metrics.SCHEDULE_RUNS.labels("accepted").inc(len(accepted))
        if refused:
            await outbox.add(
                connection,
                [envelope.command(one, message_id=one.run_id, tenant=one.owner_id) for one in refused],
            )

    async def _work(
        self, catalogue: OperationCatalogue, run: ScheduleFired, principal: Principal | None
    ) -> Work:
        """Return the task or batch that a run makes. Raise the error that refuses it."""
        if principal is None:
            raise Forbidden(
                "The key that made the schedule was revoked or has expired, or its user is disabled."
            )
        if run.fired_at < datetime.now(UTC) - _GIVEN_UP:
            raise _Unusable("not-accepted", "The run fired more than a day ago and was given up.")
        loop = asyncio.get_running_loop()
        try:
            template = await loop.run_in_executor(
                self._reader, TemplateInput.model_validate_json, run.template
            )
        except ValidationError as error:
            detail = plain.text(f"The template is no longer valid: {validation.first(error)}", most=500)
            raise _Unusable("invalid-template", detail) from None
        await catalogue.permit(
            principal, template.operation, template.payloads, following=template.on_finished
        )
        acceptance = new_acceptance(run.run_id, principal, run.kind, template.operation)
        write = partial(copy_context().run, _messages, run, template, acceptance, principal)
        messages = await loop.run_in_executor(self._reader, write)
        answer = document({"id": str(acceptance.id), "status": acceptance.status})
        path = "batches" if run.kind == "batch" else "tasks"
        return Work(acceptance, messages, answer, f"/v1/{path}/{acceptance.id}")


def _messages(
    run: ScheduleFired, template: TemplateInput, acceptance: Acceptance, principal: Principal
) -> list[Outgoing]:
    """Return the commands of a run, with payloads as the author of the template wrote them."""
    origin = {"schedule_id": str(run.schedule_id), "due_at": f"{run.due_at:%Y-%m-%dT%H:%M:%SZ}"}
    written, begun_at = run.template.encode(), acceptance.accepted_at
    if run.kind == "batch":
        batch = template.batch(metadata=origin, begun_at=begun_at)
        return commands.of_batch(acceptance, batch, principal, document=written, name="items")
    payload = member(written, "payload", orjson.dumps(template.payload))
    task = template.task(metadata=origin, begun_at=begun_at)
    return [commands.of_task(acceptance, task, principal, document=written, payload=payload)]


class _Unusable(Exception):
    """A run cannot be made, whatever the rights of its maker."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
