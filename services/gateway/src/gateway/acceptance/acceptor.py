"""Acceptance of work: one transaction in the gateway's own database, and a stored answer for repetitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from chassis import metrics, outbox
from chassis.broker.envelope import Outgoing
from chassis.errors import NotFound
from chassis.outbox import OutboxRelay
from chassis.postgres import Connection, Postgres
from gateway.acceptance import repository
from gateway.acceptance.commits import GroupCommit
from gateway.acceptance.idempotency import stored_reply
from gateway.acceptance.repository import Acceptance, StoredAnswer, UniqueClaim, Work
from gateway.errors import UniqueKeyInUse, UniqueKeyMoved
from gateway.http.calls import Call, Write
from gateway.http.principal import Principal
from gateway.http.replies import HttpReply, document

# The rows of one transaction; there are as many transactions as needed, so that removal keeps up.
_MOST_REMOVED = 1000
# The time that the claim of an upload lasts; the upload renews it.
_CLAIMED_FOR_S = 300


class Acceptor:
    """Accepts work, whether or not the services that will do it are running."""

    def __init__(
        self,
        postgres: Postgres,
        relay: OutboxRelay,
        *,
        retention_days: int,
    ) -> None:
        self._postgres = postgres
        self._relay = relay
        self._retention_days = retention_days
        self._commits = GroupCommit(self.record)

    @property
    def keeps_for_s(self) -> float:
        """For how many seconds after its end work is remembered, and so the key that it holds."""
        return self._retention_days * 86_400

    async def accept(
        self,
        call: Call,
        acceptance: Acceptance,
        messages: Sequence[Outgoing],
        *,
        location: str,
        following: Mapping[str, Any] | None,
        claim: bytes | None = None,
        unique: UniqueClaim | None = None,
        details: Mapping[str, str] = MappingProxyType({}),
        along: Write | None = None,
    ) -> HttpReply:
        """Promise `messages`, or return the stored answer to the same key or the same id.

        The answer has the id, the status, `details`, and the next step, which is `following`. `claim` is the
        token with which this request claimed its key. `along` writes what else must be there with new work,
        in one transaction with it.
        Raise `UniqueKeyMoved` when the key of `unique` has another holder by now, `Overloaded` when
        the outbox is full, `TooManyAtOnce` when the caller has its share of it, `IdempotencyMismatch` for a
        key used with another request, `IdempotencyConflict` while the first request with it still runs.
        """
        self._relay.require_room(len(messages))
        key = call.idempotency_key
        answer = document(
            {"id": str(acceptance.id), "status": acceptance.status, **details, "next": following}
        )
        work = Work(acceptance, messages, answer, location, key, claim, unique)
        if along is None:
            is_new = await self._commits.add(work)
        else:
            # By itself: what fails in `along` must not take others with it.
            async with self._postgres.transaction() as connection:
                is_new = acceptance.id in await repository.accept(connection, [work])
                if is_new:
                    await along(connection)
        if is_new:
            self._relay.wake()
            metrics.ACCEPTED.labels(acceptance.kind).inc()
            return HttpReply(answer, location=location)
        answered = None if key is None else await self.find_answer(acceptance.owner_id, key.key)
        if unique is not None and answered is None:
            raise UniqueKeyMoved("Another task has just taken the unique key; try again.", retry_after_s=1)
        return (
            HttpReply(answer, location=location, is_repeat=True)
            if key is None
            else stored_reply(answered, key)
        )

    async def record(self, group: Sequence[Work]) -> set[UUID]:
        """Record a group of work in one transaction; return the ids of what is new."""
        async with self._postgres.connection() as connection:
            return await repository.accept(connection, group)

    async def find_earlier(self, call: Call, acceptance: Acceptance) -> Acceptance | None:
        """Return the work that was accepted earlier under the id of `acceptance`, which the caller chose.

        Return None when the request's idempotency key already has an answer, which takes precedence. Raise
        `UniqueKeyInUse` when the earlier work is different.
        """
        key = call.idempotency_key
        if key is not None and await self.find_answer(acceptance.owner_id, key.key) is not None:
            return None
        async with self._postgres.connection() as connection:
            known = await repository.find(connection, acceptance.id)
        if known is not None:
            self.require_same(known, acceptance)
        return known

    async def find_unique(self, owner_id: str, key: str) -> Acceptance | None:
        """Return the work that holds or held a unique key, whatever its status."""
        async with self._postgres.connection() as connection:
            return await repository.find_unique(connection, owner_id, key)

    def require_same(self, known: Acceptance, acceptance: Acceptance) -> None:
        """Raise `UniqueKeyInUse` when `acceptance` differs from the work that has its unique key."""
        if known.operation != acceptance.operation:
            raise UniqueKeyInUse(
                f"The unique key belongs to task {known.id}, which runs the operation {known.operation!r}."
            )
        if known.payload_hash not in (None, acceptance.payload_hash):
            raise UniqueKeyInUse(f"The unique key belongs to task {known.id}, which has another payload.")

    def accept_all(self, call: Call, works: Sequence[Work]) -> None:
        """Promise several pieces of work in the transaction of `call`, all or none."""
        self._relay.require_room(sum(len(work.messages) for work in works))

        async def accept(connection: Connection) -> None:
            await repository.accept(connection, works)
            for work in works:
                metrics.ACCEPTED.labels(work.acceptance.kind).inc()

        call.writes.append(accept)
        call.after_commit.append(self._wake)

    async def promise(self, connection: Connection, call: Call, messages: Sequence[Outgoing]) -> None:
        """Put `messages` into the outbox, and deliver them once the transaction of `call` has committed."""
        self._relay.require_room(len(messages))
        await outbox.add(connection, messages)
        call.after_commit.append(self._wake)

    async def find_own(self, id: UUID, principal: Principal, kind: str) -> Acceptance | None:  # noqa: A002
        """Return the caller's acceptance, or None if there is none. Raise `NotFound` for another owner's."""
        async with self._postgres.connection() as connection:
            found = await repository.find(connection, id)
        if found is not None and (found.owner_id != principal.owner_id or found.kind != kind):
            raise NotFound(f"There is no {kind} {id}.")
        return found

    async def find_answer(self, owner_id: str, key: str) -> StoredAnswer | None:
        """Return the answer to an idempotency key of the last 24 hours."""
        async with self._postgres.connection() as connection:
            return await repository.find_answer(connection, owner_id, key)

    async def begin(self, owner_id: str, key: str, claim: bytes) -> bool:
        """Claim an idempotency key for a long request; return False when it is taken."""
        async with self._postgres.connection() as connection:
            return await repository.begin_idempotency(
                connection, owner_id, key, claim, lasts_s=_CLAIMED_FOR_S
            )

    async def renew(self, owner_id: str, key: str, claim: bytes) -> None:
        """Note that the request with this claim is still running."""
        async with self._postgres.connection() as connection:
            await repository.renew_idempotency(connection, owner_id, key, claim)

    async def abandon(
        self, acceptance: Acceptance, key: str | None, claim: bytes, messages: Sequence[Outgoing]
    ) -> None:
        """Withdraw the request with this `claim`, even when the outbox is full."""
        async with self._postgres.connection() as connection:
            await repository.abandon(connection, acceptance, key, claim, messages)
        self._relay.wake()

    async def remove_old(self) -> None:
        """Remove idempotency records older than 24 hours, and acceptances that ended long ago."""
        removed = _MOST_REMOVED
        while removed == _MOST_REMOVED:
            async with self._postgres.connection() as connection:
                removed = await repository.remove_idempotency(connection, most=_MOST_REMOVED)
            metrics.REMOVED.labels("recorded answer").inc(removed)
        removed = _MOST_REMOVED
        while removed == _MOST_REMOVED:
            async with self._postgres.connection() as connection:
                removed = await repository.remove_ended(
                    connection, keep_days=self._retention_days, most=_MOST_REMOVED
                )
            metrics.REMOVED.labels("acceptance").inc(removed)

    async def _wake(self) -> None:
        self._relay.wake()


def new_acceptance(id: UUID, principal: Principal, kind: str, operation: str | None = None) -> Acceptance:  # noqa: A002
    """Return an acceptance as of now."""
    return Acceptance(id, principal.owner_id, kind, "queued", operation, datetime.now(UTC))
