"""Tasks at the gateway: their acceptance, their unique keys, and waiting for their results."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid5

import orjson

from chassis.broker import envelope
from chassis.broker.envelope import Outgoing
from chassis.deadlines import Deadline
from chassis.errors import Conflict, NotFound, ServiceError
from chassis.waits import until_set
from contracts import batches as contract
from contracts.json_texts import member
from gateway.acceptance.acceptor import Acceptor, new_acceptance
from gateway.acceptance.idempotency import stored_reply
from gateway.acceptance.repository import Acceptance, UniqueClaim
from gateway.batches import commands
from gateway.batches.inputs import TaskInput, Unique
from gateway.batches.lookup import BatchLookup, taken_over
from gateway.batches.operations import OperationCatalogue
from gateway.errors import UniqueKeyInUse, UniqueKeyMoved
from gateway.http.calls import Call
from gateway.http.problems import invalid
from gateway.http.replies import HttpReply, document
from gateway.publishing.hub import Hub
from gateway.publishing.publications import Publication

_UNIQUE = UUID("5f0c6a55-8f63-4f3b-9d0a-0d4a6f0a2b11")
# The time-out of the query for the state of a known task; after it the last reported state is used.
_STATE_S = 1
# The pauses between polls of a task that its caller waits for; a poll asks the database and batch-processor.
FIRST_LOOK_S = 0.02
_LONGEST_PAUSE_S = 4.0
# The part of the caller's time that is reserved for the answer.
_TO_ANSWER_S = 0.1
# Of concurrent requests with one unique key, all but one find its holder at the next try.
_MOST_TRIES = 5


class TaskService:
    """Accepts tasks, for every interface."""

    def __init__(
        self, acceptor: Acceptor, catalogue: OperationCatalogue, lookup: BatchLookup, hub: Hub
    ) -> None:
        self._acceptor = acceptor
        self._catalogue = catalogue
        self._lookup = lookup
        self._hub = hub

    async def create(self, call: Call, body: TaskInput) -> HttpReply:
        """Accept one item, and have its result waited for if the caller prefers that."""
        payload = await call.compute(lambda: member(call.document, "payload", orjson.dumps(body.payload)))
        reply = await self.accept(call, body, payload)
        return replace(reply, later=partial(self._wait_for_end, call, reply)) if call.prefers_wait else reply

    async def accept(
        self, call: Call, body: TaskInput, payload: bytes, *, pointer: str = "/payload"
    ) -> HttpReply:
        """Accept one item with `payload`, which is kept byte for byte; `pointer` is its place in the body.

        Raise `UniqueKeyInUse` if a different task holds its unique key, or if the caller rejects any
        conflict.
        """
        await self._catalogue.permit(
            call.principal, body.operation, lambda: [(pointer, body.payload)], following=body.on_finished
        )
        begins_at = body.run_at or datetime.now(UTC) + timedelta(seconds=body.delay_s)
        commands.require_time(body.expires_at, begins_at=begins_at)
        if body.unique is not None:
            attempt = partial(self._accept_unique, call, body, body.unique, payload)
        elif body.unique_key is not None:
            attempt = partial(self._accept_once, call, body, body.unique_key, payload)
        else:
            acceptance = new_acceptance(envelope.new_id(), call.principal, "task", body.operation)
            return await self._promise(call, body, acceptance, payload)
        for _ in range(_MOST_TRIES):
            try:
                return await attempt()
            except UniqueKeyMoved:
                # Another request has taken the key meanwhile: try again with its task.
                continue
        raise Conflict("Several requests use this unique key at the same time; try again.", retry_after_s=1)

    async def _accept_once(self, call: Call, body: TaskInput, key: str, payload: bytes) -> HttpReply:
        """Accept a task whose id is derived from its key: the id is the same while the task is stored."""
        id_ = uuid5(_UNIQUE, f"{call.principal.owner_id}:{key}")
        acceptance = new_acceptance(id_, call.principal, "task", body.operation)
        acceptance = replace(acceptance, payload_hash=await call.compute(partial(_hash, body)))
        if await self._acceptor.find_earlier(call, acceptance) is None:
            # The claim prevents a concurrent request with the same key from a result of its own.
            claim = UniqueClaim(str(id_), replaces=None)
            return await self._promise(call, body, acceptance, payload, claim=claim)
        known = await self._lookup.find(call.principal, id_, "task", Deadline.after(_STATE_S))
        return await self._promise(call, body, acceptance, payload, known=known)

    async def _accept_unique(self, call: Call, body: TaskInput, unique: Unique, payload: bytes) -> HttpReply:
        """Accept a task unless another one holds its key; then do what `on_conflict` says."""
        if unique.period_s is not None and unique.period_s > self._acceptor.keeps_for_s:
            raise invalid(
                "/unique/period_s",
                f"Tasks, and the keys that they hold, are remembered for {self._acceptor.keeps_for_s:.0f} s "
                "after their end: set a period_s of at most that.",
            )
        key, owner_id = call.idempotency_key, call.principal.owner_id
        if key is not None and (answered := await self._acceptor.find_answer(owner_id, key.key)):
            return stored_reply(answered, key)
        acceptance = new_acceptance(envelope.new_id(), call.principal, "task", body.operation)
        acceptance = replace(acceptance, payload_hash=await call.compute(partial(_hash, body)))
        holder = await self._acceptor.find_unique(owner_id, unique.key)
        claim = UniqueClaim(unique.key, replaces=None if holder is None else holder.id)
        known = None if holder is None else await self._known_holder(call, holder, unique)
        if holder is None or known is None:
            return await self._promise(call, body, acceptance, payload, claim=claim)
        if unique.on_conflict == "reject":
            raise UniqueKeyInUse(f"The unique key is held by task {holder.id}, which is {known['status']}.")
        if unique.on_conflict == "return":
            self._acceptor.require_same(holder, acceptance)
            return await self._answer(call, holder, [], known=known)
        cancel = contract.CancelBatch(batch_id=holder.id, owner_id=owner_id)
        first = [envelope.command(cancel, tenant=owner_id)]
        return await self._promise(call, body, acceptance, payload, claim=claim, first=first)

    async def _known_holder(self, call: Call, holder: Acceptance, unique: Unique) -> dict[str, Any] | None:
        """Return a task that still holds its key; None if the task has released it."""
        try:
            task = await self._lookup.find(call.principal, holder.id, "task", Deadline.after(_STATE_S))
        except NotFound:
            return None
        status: str = task["status"]
        if unique.while_ == "period":
            ends_at = holder.accepted_at + timedelta(seconds=unique.period_s or 0)
            return task if datetime.now(UTC) < ends_at else None
        if status in contract.FINISHED:
            return None
        has_begun = status in ("running", "cancelling") or task.get("started_at") is not None
        return None if unique.while_ == "queued" and has_begun else task

    async def _promise(
        self,
        call: Call,
        body: TaskInput,
        acceptance: Acceptance,
        payload: bytes,
        *,
        claim: UniqueClaim | None = None,
        first: Sequence[Outgoing] = (),
        known: Mapping[str, Any] | None = None,
    ) -> HttpReply:
        make = partial(
            commands.of_task, acceptance, body, call.principal, document=call.document, payload=payload
        )
        message = await call.compute(make)
        return await self._answer(call, acceptance, [*first, message], claim=claim, known=known)

    async def _answer(
        self,
        call: Call,
        acceptance: Acceptance,
        messages: Sequence[Outgoing],
        *,
        claim: UniqueClaim | None = None,
        known: Mapping[str, Any] | None,
    ) -> HttpReply:
        """Promise `messages`; the answer has the state of the task that is `known` by this id already."""
        following: Mapping[str, Any] | None = taken_over(since=acceptance.accepted_at)
        if known is not None:
            acceptance, following = replace(acceptance, status=known["status"]), known.get("next")
        location = f"/v1/tasks/{acceptance.id}"
        return await self._acceptor.accept(
            call, acceptance, messages, location=location, following=following, unique=claim
        )

    async def _wait_for_end(self, call: Call, accepted: HttpReply) -> HttpReply:
        """Return the task if it ends in time, else the answer to its acceptance.

        The end is pushed. Because a push can be lost, the task is also polled, at growing intervals: a caller
        may wait for hundreds of tasks.
        """
        assert isinstance(accepted.body, bytes)
        task_id = UUID(orjson.loads(accepted.body)["id"])
        has_ended = asyncio.Event()

        def hear(change: Publication) -> None:
            if change.data["status"] in contract.FINISHED:
                has_ended.set()

        async def end() -> bytes:
            pause_s = FIRST_LOOK_S
            while True:
                await until_set(has_ended, pause_s)
                has_ended.clear()
                pause_s = min(4 * pause_s, _LONGEST_PAUSE_S)
                task = await self._lookup.read(call.principal, task_id, "task", call.deadline)
                if isinstance(task, bytes) and orjson.loads(task)["status"] in contract.FINISHED:
                    return task

        stop = self._hub.listen(f"task:{task_id}", hear)
        try:
            async with asyncio.timeout(call.deadline.remaining_s() - _TO_ANSWER_S):
                ended = await end()
        except (TimeoutError, ServiceError):
            # It has been accepted, even if the polls failed.
            return accepted
        finally:
            stop()
        headers = {"preference-applied": "wait"}
        return replace(accepted, body=document(ended), status=200, headers=headers)


def _hash(body: TaskInput) -> bytes:
    return hashlib.sha256(orjson.dumps(body.payload, option=orjson.OPT_SORT_KEYS)).digest()
