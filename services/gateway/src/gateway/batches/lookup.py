"""Looking up a caller's batch or task: as batch-processor reports it, or with its last known status."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import NotBegun, NotFound, ServiceError, Unavailable
from contracts import batches as contract
from gateway.acceptance.acceptor import Acceptor
from gateway.acceptance.repository import Acceptance
from gateway.http.principal import Principal


class BatchLookup:
    """Looks batches and tasks up by their ids; another owner's is not found."""

    def __init__(self, acceptor: Acceptor, rpc: RpcClient) -> None:
        self._acceptor = acceptor
        self._rpc = rpc

    async def find(
        self, principal: Principal, id_: UUID, kind: contract.Kind, deadline: Deadline
    ) -> dict[str, Any]:
        """Return a batch or task of `principal`."""
        found = await self.read(principal, id_, kind, deadline)
        if isinstance(found, dict):
            return found
        document: dict[str, Any] = orjson.loads(found)
        return document

    async def read(
        self, principal: Principal, id_: UUID, kind: contract.Kind, deadline: Deadline
    ) -> bytes | dict[str, Any]:
        """Return a batch or task of `principal` as batch-processor returned it.

        It is `queued` until batch-processor has stored it, `parked` if batch-processor could not handle its
        command.
        """
        accepted = await self._acceptor.find_own(id_, principal, kind)
        question = contract.GetBatch(batch_id=id_, owner_id=principal.owner_id, kind=kind)
        try:
            return await self._rpc.ask(question, deadline)
        except ServiceError as error:
            is_silent = isinstance(error, (Unavailable, NotBegun)) or error.status == 504
            if accepted is None or not (is_silent or error.status == 404):
                raise NotFound(f"There is no {kind} {id_}.") if error.status == 404 else error from None
            return _summary(accepted)


def revision_of(task: bytes | Mapping[str, Any]) -> str:
    """Return the part of a task that requests can change, its scheduled time, as a short string."""
    run_at = (orjson.loads(task) if isinstance(task, bytes) else task).get("run_at")
    return hashlib.sha256(str(run_at).encode()).hexdigest()[:8]


def taken_over(*, since: datetime) -> dict[str, Any]:
    """Return the next step of a command that was promised to batch-processor at `since`, as plain data."""
    by = since + timedelta(seconds=contract.STORED_WITHIN_S)
    return {"what": "batch-processor takes it over", "by": by}


def _summary(accepted: Acceptance) -> dict[str, Any]:
    following = None
    if accepted.status == "queued":
        following = taken_over(since=accepted.accepted_at)
    elif accepted.status == "parked":
        following = {"what": "an administrator decides", "by": None}
    return {
        "id": str(accepted.id),
        "kind": accepted.kind,
        "operation": accepted.operation,
        "status": accepted.status,
        "counts": None,
        "accepted_at": accepted.accepted_at,
        "next": following,
        "detail_available": False,
        **({"reason": accepted.reason} if accepted.reason else {}),
    }
