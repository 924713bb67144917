"""Effects that happen once: the same Idempotency-Key and request get the same answer again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from chassis import metrics
from chassis.errors import Forbidden, ServiceError
from chassis.postgres import DATABASE_FAILURES, Connection, Postgres
from gateway.acceptance import repository
from gateway.acceptance.repository import StoredAnswer
from gateway.errors import IdempotencyConflict, IdempotencyMismatch
from gateway.http.calls import Call, IdempotencyKey
from gateway.http.endpoints import Endpoint, Idempotency
from gateway.http.replies import HttpReply

# The time that a claim lasts beyond the deadline of its request, for the answer and the writes.
_MARGIN_S = 5
_FREED_WITHIN_S = 2
_RUNS = "A request with this Idempotency-Key is still running."


def stored_reply(answered: StoredAnswer | None, key: IdempotencyKey) -> HttpReply:
    """Return the stored answer.

    Raise `IdempotencyConflict` while there is none, and `IdempotencyMismatch` if it belongs to another
    request.
    """
    if answered is None or answered.status is None:
        raise IdempotencyConflict(_RUNS, retry_after_s=2)
    if answered.body_hash != key.body_hash:
        raise IdempotencyMismatch("This Idempotency-Key was used within 24 hours for another request.")
    metrics.REPEATED_ANSWERS.inc()
    return HttpReply(
        answered.answer, answered.status, location=answered.location, etag=answered.etag, is_repeat=True
    )


class Once:
    """Runs the effect of a call once; a repeated request gets the same answer again."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def __call__(
        self, call: Call, endpoint: Endpoint, effect: Callable[[], Awaitable[HttpReply]]
    ) -> HttpReply:
        """Return the answer of `effect`, or the stored one if the same request was answered before."""
        if endpoint.idempotency is Idempotency.ACCEPTANCE:
            return await self._accepted(call, endpoint, effect)
        if endpoint.idempotency is Idempotency.TRANSACTION:
            reply = await self._in_transaction(call, endpoint, effect)
        elif call.idempotency_key is None:
            reply = await effect()
            if call.writes:
                async with self._postgres.transaction() as connection:
                    await _write(connection, call)
        else:
            reply = await self._with_claim(call, call.idempotency_key, endpoint, effect)
        if reply.is_repeat:
            return endpoint.after_repeat(call, reply) if endpoint.after_repeat else reply
        for follow_up in call.after_commit:
            await follow_up()
        return reply

    async def _accepted(
        self, call: Call, endpoint: Endpoint, effect: Callable[[], Awaitable[HttpReply]]
    ) -> HttpReply:
        """Return the answer of `effect`, which records it itself.

        Work that was accepted is answered again, even if it would be refused by now. Rights are those of now.
        """
        try:
            return await effect()
        except ServiceError as refusal:
            key = call.idempotency_key
            if key is None or refusal.status >= 500 or isinstance(refusal, Forbidden):
                raise
            async with self._postgres.connection() as connection:
                answered = await repository.find_answer(connection, call.principal.owner_id, key.key)
            if answered is None or answered.status is None or answered.body_hash != key.body_hash:
                raise
            reply = stored_reply(answered, key)
            return endpoint.after_repeat(call, reply) if endpoint.after_repeat else reply

    async def _in_transaction(
        self, call: Call, endpoint: Endpoint, effect: Callable[[], Awaitable[HttpReply]]
    ) -> HttpReply:
        async with self._postgres.transaction() as connection:
            call.transaction = connection
            key, owner_id = call.idempotency_key, call.principal.owner_id
            if key is None:
                return await effect()
            # Waits here while another request with the same key is running.
            if not await repository.claim_idempotency(connection, owner_id, key):
                return stored_reply(await repository.find_answer(connection, owner_id, key.key), key)
            reply = await effect()
            await repository.record_idempotency(connection, owner_id, key.key, **_recorded(reply, endpoint))
            return reply

    async def _with_claim(
        self, call: Call, key: IdempotencyKey, endpoint: Endpoint, effect: Callable[[], Awaitable[HttpReply]]
    ) -> HttpReply:
        """Run `effect` without a connection. Raise `IdempotencyConflict` while the first request runs.

        If the request fails here, the other service recognises its repetition by the `request_key`.
        """
        owner_id, claim = call.principal.owner_id, os.urandom(16)
        lasts_s = max(call.deadline.remaining_s(), 0) + _MARGIN_S
        async with self._postgres.connection() as connection:
            if not await repository.begin_idempotency(connection, owner_id, key.key, claim, lasts_s=lasts_s):
                return stored_reply(await repository.find_answer(connection, owner_id, key.key), key)
        try:
            reply = await effect()
            async with self._postgres.transaction() as connection:
                await _write(connection, call)
                recorded = _recorded(reply, endpoint)
                if not await repository.settle_idempotency(connection, owner_id, key, claim, **recorded):
                    # The claim has expired, and another request has claimed the key.
                    raise IdempotencyConflict(_RUNS, retry_after_s=2)
        except BaseException:
            # If this fails, or the gateway dies, the claim expires with the deadline of its request.
            with suppress(*DATABASE_FAILURES):
                async with asyncio.timeout(_FREED_WITHIN_S), self._postgres.connection() as connection:
                    await repository.free_idempotency(connection, owner_id, key.key, claim)
            raise
        return reply


async def _write(connection: Connection, call: Call) -> None:
    for write in call.writes:
        await write(connection)


def _recorded(reply: HttpReply, endpoint: Endpoint) -> dict[str, Any]:
    """Return the parts of a reply that are stored."""
    body = reply.recorded if reply.recorded is not None else reply.body
    assert body is None or isinstance(body, bytes), "a stream cannot be stored"
    return {
        "status": reply.status or endpoint.status,
        "answer": body or b"",
        "location": reply.location,
        "etag": reply.etag,
    }
