"""`/v1/admin/pauses`: no work of a paused operation or owner starts until it is resumed."""

from __future__ import annotations

from collections.abc import Sequence

from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import NotFound
from contracts.pauses import ListPauses, Pause, PauseKind, Pauses, PauseWork, ResumeWork
from gateway.administration.inputs import PauseInput, PauseList
from gateway.audit.inputs import Action
from gateway.audit.service import AuditTrail
from gateway.batches.operations import OperationCatalogue
from gateway.http.calls import Call
from gateway.identity.user_service import UserService


class PauseService:
    """Forwards pauses to batch-processor, which stores them, and records them in the audit trail."""

    def __init__(
        self, rpc: RpcClient, catalogue: OperationCatalogue, users: UserService, audit: AuditTrail
    ) -> None:
        self._rpc = rpc
        self._catalogue = catalogue
        self._users = users
        self._audit = audit

    async def list(self, call: Call) -> PauseList:
        """Return all pauses."""
        return PauseList(data=list(await self.all(call.deadline)))

    async def all(self, deadline: Deadline) -> Sequence[Pause]:
        """Return all pauses. Raise `Unavailable` when batch-processor does not answer."""
        return (await self._rpc.call(ListPauses(), Pauses, deadline)).data

    async def pause_operation(self, call: Call, name: str, body: PauseInput) -> Pause:
        """Pause an operation for all owners. Raise `NotFound` if it does not exist."""
        known = [operation["name"] for operation in await self._catalogue.all()]
        if name not in known:
            raise NotFound(f"There is no operation {name!r}; the operations are {', '.join(sorted(known))}.")
        return await self._pause(call, "operation", name, body.reason)

    async def pause_owner(self, call: Call, user_id: int, body: PauseInput) -> Pause:
        """Pause a user's batches and tasks. Raise `NotFound` if the user does not exist."""
        await self._users.get(call, user_id)
        return await self._pause(call, "owner", str(user_id), body.reason)

    async def resume_operation(self, call: Call, name: str) -> None:
        """Resume an operation."""
        await self._resume(call, "operation", name)

    async def resume_owner(self, call: Call, user_id: int) -> None:
        """Resume a user's batches and tasks."""
        await self._resume(call, "owner", str(user_id))

    async def _pause(self, call: Call, kind: PauseKind, name: str, reason: str) -> Pause:
        request = PauseWork(kind=kind, name=name, reason=reason, paused_by=call.principal.key_id)
        found = await self._rpc.call(request, Pauses, call.deadline)
        await self._audit.record_now(call, Action.WORK_PAUSED, f"{kind}:{name}", after={"reason": reason})
        return next(pause for pause in found.data if (pause.kind, pause.name) == (kind, name))

    async def _resume(self, call: Call, kind: PauseKind, name: str) -> None:
        await self._rpc.call(ResumeWork(kind=kind, name=name), Pauses, call.deadline)
        await self._audit.record_now(call, Action.WORK_RESUMED, f"{kind}:{name}")
