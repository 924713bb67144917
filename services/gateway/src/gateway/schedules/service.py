"""Schedules at the gateway: made, changed and shown here, stored and fired by batch-processor."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from chassis.broker import envelope
from chassis.broker.rpc import RpcClient
from chassis.errors import Conflict, InvalidInput, RemoteFailure
from contracts import schedules as contract
from contracts.json_texts import members
from contracts.message import FieldError
from contracts.schedules import (
    MOST_TEMPLATE_BYTES,
    ChangeSchedule,
    CreateSchedule,
    DeleteSchedule,
    GetSchedule,
    ListScheduleRuns,
    ListSchedules,
    PauseSchedule,
    RunReply,
    RunSchedule,
    Schedule,
    ScheduleRun,
    ScheduleRuns,
    Schedules,
)
from gateway.audit.inputs import Action
from gateway.audit.service import AuditTrail
from gateway.batches.operations import OperationCatalogue
from gateway.errors import PreconditionFailed, UnknownOperation
from gateway.http.calls import Call
from gateway.http.problems import invalid
from gateway.http.replies import HttpReply, document, entity_tag
from gateway.schedules.inputs import (
    NextRuns,
    NextRunsQuery,
    RunPage,
    RunsQuery,
    ScheduleChange,
    ScheduleInput,
    SchedulesQuery,
    TemplateInput,
)

# Fields that the gateway itself uses; callers see the template as it was written.
_INSIDE = {"template", "revision", "operation"}


class ScheduleService:
    """Forwards the caller's requests, after checking that the caller may do what the schedule will do."""

    def __init__(self, rpc: RpcClient, catalogue: OperationCatalogue, audit: AuditTrail) -> None:
        self._rpc = rpc
        self._catalogue = catalogue
        self._audit = audit

    async def create(self, call: Call, body: ScheduleInput) -> HttpReply:
        """Store a schedule. The rights that its runs need are checked here, and again at each run."""
        await self._permit(call, body.template)
        request = CreateSchedule(
            schedule_id=envelope.new_id(),
            owner_id=call.principal.owner_id,
            made_by=call.principal.key_id,
            scopes=call.principal.token_scopes,
            request_key=call.request_key,
            **{**dict(body), **await call.compute(partial(_template_of, call, body.template))},
        )
        made = await self._rpc.call(request, Schedule, call.deadline)
        self._record(call, Action.SCHEDULE_CREATED, made.id, _audited(body))
        return _reply(made, location=f"/v1/schedules/{made.id}")

    async def list(self, call: Call, query: SchedulesQuery) -> HttpReply:
        """Return a page of the caller's schedules, newest first."""
        request = ListSchedules(
            owner_id=call.principal.owner_id,
            status=query.status or [],
            operations=query.operation or [],
            created_after=query.created_after,
            created_before=query.created_before,
            before=query.cursor,
            limit=query.limit,
        )
        page = await self._rpc.call(request, Schedules, call.deadline)
        cursor = b"null" if page.next_cursor is None else b'"%s"' % str(page.next_cursor).encode()
        rows = b",".join(map(_written, page.data))
        return HttpReply(document(b'{"data":[' + rows + b'],"next_cursor":' + cursor + b"}"))

    async def get(self, call: Call, schedule_id: UUID) -> HttpReply:
        """Return a schedule of the caller."""
        return _reply(await self._find(call, schedule_id))

    async def next_runs(self, call: Call, schedule_id: UUID, query: NextRunsQuery) -> NextRuns:
        """Return the next due times of a schedule of the caller."""
        found = await self._find(call, schedule_id, next_runs=query.limit)
        return NextRuns(data=found.next_runs)

    async def runs(self, call: Call, schedule_id: UUID, query: RunsQuery) -> RunPage:
        """Return a page of the runs of a schedule of the caller, newest first."""
        request = ListScheduleRuns(
            schedule_id=schedule_id,
            owner_id=call.principal.owner_id,
            status=query.status or [],
            trigger=query.trigger or [],
            created_after=query.created_after,
            created_before=query.created_before,
            before=query.cursor,
            limit=query.limit,
        )
        page = await self._rpc.call(request, ScheduleRuns, call.deadline)
        return RunPage(data=page.data, next_cursor=page.next_cursor)

    async def change(self, call: Call, schedule_id: UUID, body: ScheduleChange) -> HttpReply:
        """Change a schedule at the version that the caller has read; it then has the caller's rights."""
        seen = await self._find(call, schedule_id)
        call.require_revision(seen.revision, etag=_etag(seen))
        template = body.template or _stored_template(seen)
        await self._permit(call, template)
        given: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set - {"template"}}
        if body.template is not None:
            given |= await call.compute(partial(_template_of, call, body.template))
        request = ChangeSchedule(
            schedule_id=schedule_id,
            owner_id=call.principal.owner_id,
            made_by=call.principal.key_id,
            scopes=call.principal.token_scopes,
            revision=seen.revision,
            **given,
        )
        changed = await self._rpc.call(request, Schedule, call.deadline)
        self._record(call, Action.SCHEDULE_CHANGED, schedule_id, _audited(body))
        return _reply(changed)

    async def pause(self, call: Call, schedule_id: UUID) -> HttpReply:
        """Pause a schedule until it is resumed."""
        return await self._pause(call, schedule_id, paused=True)

    async def resume(self, call: Call, schedule_id: UUID) -> HttpReply:
        """Resume a paused schedule, from its next due time on."""
        seen = await self._find(call, schedule_id)
        await self._permit(call, _stored_template(seen))
        return await self._pause(call, schedule_id, paused=False)

    async def delete(self, call: Call, schedule_id: UUID) -> None:
        """Delete a schedule at the version that the caller has read, with its history and waiting runs."""
        seen = await self._find(call, schedule_id)
        call.require_revision(seen.revision, etag=_etag(seen))
        request = DeleteSchedule(
            schedule_id=schedule_id, owner_id=call.principal.owner_id, revision=seen.revision
        )
        await self._rpc.call(request, Schedule, call.deadline)
        self._record(call, Action.SCHEDULE_DELETED, schedule_id, {"name": seen.name}, is_gone=True)

    async def run(self, call: Call, schedule_id: UUID) -> HttpReply:
        """Run a schedule now, whatever its cron says: the caller needs the rights of the run."""
        seen = await self._find(call, schedule_id)
        await self._permit(call, _stored_template(seen))
        request = RunSchedule(
            schedule_id=schedule_id,
            owner_id=call.principal.owner_id,
            run_id=envelope.new_id(),
            revision=seen.revision,
            request_key=call.request_key,
        )
        try:
            run = (await self._rpc.call(request, RunReply, call.deadline)).run
        except RemoteFailure as error:
            if error.code != PreconditionFailed.code:
                raise
            detail = "The schedule was changed at the same time; read it again, and repeat the run."
            raise Conflict(detail, retry_after_s=1) from None
        self._record(call, Action.SCHEDULE_TRIGGERED, schedule_id, {"run_id": str(run.id)})
        return HttpReply(document(run), location=location_of(run, seen.kind))

    async def _find(self, call: Call, schedule_id: UUID, *, next_runs: int = 5) -> Schedule:
        request = GetSchedule(schedule_id=schedule_id, owner_id=call.principal.owner_id, next_runs=next_runs)
        return await self._rpc.call(request, Schedule, call.deadline)

    async def _pause(self, call: Call, schedule_id: UUID, *, paused: bool) -> HttpReply:
        request = PauseSchedule(schedule_id=schedule_id, owner_id=call.principal.owner_id, paused=paused)
        found = await self._rpc.call(request, Schedule, call.deadline)
        action = Action.SCHEDULE_PAUSED if paused else Action.SCHEDULE_RESUMED
        self._record(call, action, schedule_id, {"status": found.status})
        return _reply(found)

    async def _permit(self, call: Call, template: TemplateInput) -> None:
        """Raise the error that would keep the caller from making what the template makes."""
        try:
            await self._catalogue.permit(
                call.principal, template.operation, template.payloads, following=template.on_finished
            )
        except (InvalidInput, UnknownOperation) as error:
            # Its pointers are those of the template.
            error.errors = [
                FieldError(pointer=f"/template{one.pointer}", detail=one.detail) for one in error.errors
            ]
            raise

    def _record(
        self, call: Call, action: Action, id_: UUID, details: dict[str, Any], *, is_gone: bool = False
    ) -> None:
        state = {"before" if is_gone else "after": details}
        self._audit.record_with(call, action, f"schedule:{id_}", **state)


def location_of(run: ScheduleRun, kind: str) -> str:
    """Return the path of the batch or task that a run makes; `kind` says which of the two."""
    return f"/v1/{'batches' if kind == 'batch' else 'tasks'}/{run.id}"


def _template_of(call: Call, template: TemplateInput) -> dict[str, Any]:
    """Return the template of the body as its caller wrote it, with its kind and operation."""
    written = members(call.document.decode())["template"]
    if len(written.encode()) > MOST_TEMPLATE_BYTES:
        raise invalid(
            "/template", f"The template must have at most {MOST_TEMPLATE_BYTES} bytes, as it is written."
        )
    return {"template": written, "kind": template.kind, "operation": template.operation}


def _audited(body: ScheduleInput | ScheduleChange) -> dict[str, Any]:
    """Return the details of a change for the audit trail; of the template only the operation."""
    details = body.model_dump(mode="json", exclude={"template"}, exclude_unset=True)
    return details if body.template is None else {**details, "operation": body.template.operation}


def _reply(schedule: contract.Schedule, *, location: str | None = None) -> HttpReply:
    """Return a schedule with its entity tag."""
    return HttpReply(document(_written(schedule)), etag=_etag(schedule), location=location)


def _etag(schedule: contract.Schedule) -> str:
    return entity_tag(_written(schedule), schedule.revision)


def _written(schedule: contract.Schedule) -> bytes:
    """Return a schedule as callers see it, with the template as its owner wrote it."""
    rest = schedule.model_dump_json(exclude=_INSIDE).encode()
    return rest[:-1] + b',"template":' + schedule.template.encode() + b"}"


def _stored_template(seen: Schedule) -> TemplateInput:
    try:
        return TemplateInput.model_validate_json(seen.template)
    except ValidationError:
        # Its author can mend it, which is no failure of the service.
        raise invalid("/template", "The stored template is no longer valid: send a new one.") from None
