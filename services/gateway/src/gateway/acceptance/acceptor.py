"""Accepting work: one transaction in the gateway's own database, and an answer that can be given again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

import orjson

from chassis import logging, metrics
from chassis.broker.envelope import Outgoing
from chassis.errors import DatabaseUnavailable, NotFound
from chassis.outbox import OutboxRelay
from gateway.acceptance.idempotency import IdempotencyKey
from gateway.acceptance.repository import Acceptance, AcceptanceRepository, Answered
from gateway.errors import IdempotencyConflict, IdempotencyMismatch
from gateway.http.principal import Principal

log = logging.get(__name__)

_CLEAN_EVERY_S = 60


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to accepted work: a JSON body, where to look, and whether it had been given before."""

    body: bytes
    location: str
    is_replay: bool = False
    status: int = 202


class Acceptor:
    """Accepts work for later, whether or not the services that will do it are there now."""

    def __init__(self, repository: AcceptanceRepository, relay: OutboxRelay, *, retention_days: int) -> None:
        self._repository = repository
        self._relay = relay
        self._retention_days = retention_days

    async def accept(
        self,
        acceptance: Acceptance,
        messages: Sequence[Outgoing],
        *,
        key: IdempotencyKey | None,
        answer: Accepted,
        claim: bytes | None = None,
    ) -> Accepted:
        """Promise `messages`, or give the answer that was given to the same key, or the same id, before.

        `claim` is what this request has claimed its key with. Raises `Overloaded` when the outbox is full,
        `IdempotencyMismatch` for a key used with another body, `IdempotencyConflict` while the first
        request with it still runs.
        """
        self._relay.require_room()
        done = await self._repository.accept(
            acceptance, messages, key=key, answer=answer.body, location=answer.location, claim=claim
        )
        if not done:
            if key is None:
                return replace(answer, is_replay=True)
            return replay(await self.answered(acceptance.owner_id, key.key), key)
        self._relay.wake()
        metrics.ACCEPTED.labels(acceptance.kind).inc()
        return answer

    async def answered(self, owner_id: str, key: str) -> Answered:
        """The answer that `key` got. Raises `IdempotencyConflict` while there is none."""
        answered = await self._repository.find_answer(owner_id, key)
        if answered is None or answered.status is None:
            raise IdempotencyConflict(
                "A request with this Idempotency-Key is still running.", retry_after_s=2
            )
        return answered

    async def promise(self, messages: Sequence[Outgoing]) -> None:
        """Bring `messages` to the broker, sooner or later, for sure."""
        self._relay.require_room()
        await self._repository.add_to_outbox(messages)
        self._relay.wake()

    async def find_own(self, id: UUID, principal: Principal, kind: str) -> Acceptance | None:  # noqa: A002
        """The caller's own acceptance; another's is not found, one never accepted here is None."""
        found = await self._repository.find(id)
        if found is not None and (found.owner_id != principal.owner_id or found.kind != kind):
            raise NotFound(f"There is no {kind} {id}.")
        return found

    async def abandon(
        self, acceptance: Acceptance, key: str | None, claim: bytes, messages: Sequence[Outgoing]
    ) -> None:
        """Take back what was begun with `claim`, however full the outbox is."""
        await self._repository.abandon(acceptance, key, claim, messages)
        self._relay.wake()

    async def clean(self) -> None:
        """Remove old idempotency records, and acceptances that ended long ago, for ever."""
        while True:
            await asyncio.sleep(_CLEAN_EVERY_S)
            try:
                await self._repository.clean(keep_days=self._retention_days)
            except DatabaseUnavailable as error:
                log.warning("old acceptances not removed", reason=error.detail)


def new_acceptance(id: UUID, principal: Principal, kind: str, operation: str | None = None) -> Acceptance:  # noqa: A002
    """An acceptance as of now."""
    return Acceptance(id, principal.owner_id, kind, "queued", operation, datetime.now(UTC))


def batch_answer(acceptance: Acceptance, *, is_replay: bool = False) -> Accepted:
    """The answer to an accepted batch or task."""
    folder = "tasks" if acceptance.kind == "task" else "batches"
    body = orjson.dumps({"id": str(acceptance.id), "status": "queued"})
    return Accepted(body, f"/v1/{folder}/{acceptance.id}", is_replay=is_replay)


def replay(answered: Answered, key: IdempotencyKey) -> Accepted:
    """The answer again. Raises `IdempotencyMismatch` when it was given to another body."""
    if answered.body_hash != key.body_hash:
        raise IdempotencyMismatch("This Idempotency-Key was used within 24 hours with another body.")
    assert answered.status is not None
    metrics.IDEMPOTENT_REPLAYS.inc()
    return Accepted(answered.answer, answered.location, is_replay=True, status=answered.status)
