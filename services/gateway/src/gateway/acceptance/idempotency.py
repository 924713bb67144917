"""Effects that happen once: the same Idempotency-Key and request get the same answer again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from chassis import metrics
from chassis.postgres import Connection, Postgres
from gateway.errors import IdempotencyConflict, IdempotencyMismatch
from gateway.http.calls import Call, IdempotencyKey
from gateway.http.endpoints import Endpoint
from gateway.http.replies import Reply


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer that a request with this key got; `status` is None while the request still runs."""

    body_hash: bytes
    status: int | None
    answer: bytes
    location: str | None


def replay(answered: Answered | None, key: IdempotencyKey) -> Reply:
    """Return the answer again.

    Raise `IdempotencyConflict` while there is none, `IdempotencyMismatch` when it answered another request.
    """
    if answered is None or answered.status is None:
        raise IdempotencyConflict("A request with this Idempotency-Key is still running.", retry_after_s=2)
    if answered.body_hash != key.body_hash:
        raise IdempotencyMismatch("This Idempotency-Key was used within 24 hours for another request.")
    metrics.IDEMPOTENT_REPLAYS.inc()
    return Reply(answered.answer, answered.status, location=answered.location, is_replay=True)


class Once:
    """Runs the effect of a call and records its answer in one transaction."""

    def __init__(self, postgres: Postgres, queries: Mapping[str, str]) -> None:
        self._postgres = postgres
        self._queries = queries

    async def __call__(self, call: Call, endpoint: Endpoint, effect: Callable[[], Awaitable[Reply]]) -> Reply:
        """Return the answer of `effect`, or the one that the same request got before."""
        async with self._postgres.transaction() as connection:
            call.transaction = connection
            key, owner_id = call.idempotency_key, call.principal.owner_id
            if key is None:
                reply = await effect()
            # A request with the same key that runs now makes this one wait here until it has ended.
            elif await connection.fetchval(
                self._queries["claim_idempotency"], owner_id, key.key, key.body_hash
            ):
                reply = await effect()
                body = reply.recorded if reply.recorded is not None else reply.body
                assert body is None or isinstance(body, bytes), "a stream cannot be given again"
                status = reply.status or endpoint.status
                await connection.execute(
                    self._queries["record_idempotency"],
                    *(owner_id, key.key, status, body or b"", reply.location),
                )
            else:
                earlier = replay(await find_answer(connection, self._queries, owner_id, key.key), key)
                return endpoint.after_replay(call, earlier) if endpoint.after_replay else earlier
        for follow_up in call.after_commit:
            await follow_up()
        return reply


async def find_answer(
    connection: Connection, queries: Mapping[str, str], owner_id: str, key: str
) -> Answered | None:
    """Return what was answered to `key` within the last 24 hours."""
    row = await connection.fetchrow(queries["find_idempotency"], owner_id, key)
    return Answered(row["body_hash"], row["status"], row["answer"], row["location"]) if row else None
