"""Answers to submitted bounces: only the signature in the return path identifies the recipient."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from uuid import UUID

from chassis import logging, metrics
from chassis.deadlines import Deadline
from chassis.errors import NotFound, Overloaded
from chassis.postgres import Postgres
from contracts.emails import BounceRecorded, RecordBounce
from emailer.bounces import repository as bounces
from emailer.bounces.domains import LABELS
from emailer.bounces.reader import BounceReader
from emailer.bounces.return_path import ReturnPath
from emailer.mails import announcing, repository
from emailer.suppression import learning
from emailer.suppression.rules import AddressFailure, SuppressionTerms

log = logging.get(__name__)

# Bounces in memory at a time, so that a flood of them leaves room for the other requests.
MOST_UNDER_WAY = 16


class BounceAnswers:
    """Has bounces read, and records what they say about their recipients."""

    def __init__(
        self,
        postgres: Postgres,
        return_path: ReturnPath,
        reader: BounceReader,
        *,
        terms: SuppressionTerms,
        changed: Callable[[], None],
    ) -> None:
        self._postgres = postgres
        self._return_path = return_path
        self._terms = terms
        self._changed = changed
        self._reader = reader
        self._under_way = 0

    async def record(self, request: RecordBounce, _: Deadline) -> BounceRecorded:
        """Record a bounce; submitting the same one again has no effect.

        Raise `NotFound` unless the return path is signed, and `Overloaded` when too many bounces wait: the
        mail server then retries later.
        """
        key = self._return_path.read(request.recipient)
        if key is None:
            metrics.EMAIL_BOUNCES.labels("unsigned").inc()
            raise NotFound(
                "The recipient is not a return path of this system, or the key that signed it was removed."
            )
        if self._under_way >= MOST_UNDER_WAY:
            raise Overloaded("Too many bounces are being read; submit this one again later.", retry_after_s=5)
        self._under_way += 1
        try:
            return await self._record(key, base64.b64decode(request.content))
        finally:
            self._under_way -= 1

    async def _record(self, key: tuple[UUID, int], content: bytes) -> BounceRecorded:
        digest = hashlib.sha256(content).digest()
        async with self._postgres.connection() as connection:
            seen = await bounces.look(connection, *key, digest=digest)
        if seen is None:
            metrics.EMAIL_BOUNCES.labels("late").inc()
            raise NotFound("The record of the bounced mail has been removed.")
        if seen.known is not None or seen.are_enough:
            # Anybody who got a mail can write to its return path, and parsing takes CPU time.
            return BounceRecorded(kind=seen.known or "other", is_new=False)
        bounce = await self._reader.read(content, owner_id=seen.owner_id)
        async with self._postgres.transaction() as connection:
            recipient = await bounces.find(connection, *key)
            if recipient is None:
                raise NotFound("The record of the bounced mail has just been removed.")
            is_new = await bounces.note(connection, recipient, bounce, digest=digest)
            if is_new:
                if await bounces.settle(connection, recipient, bounce.kind):
                    changes = await repository.sum_up(connection, {recipient.email_id})
                    await announcing.announce(connection, changes)
                await learning.learn(
                    connection,
                    [
                        AddressFailure(
                            recipient.target, recipient.email_id, bounce.fault, "bounce", bounce.detail
                        )
                    ]
                    if bounce.fault is not None
                    else [],
                    taken=[recipient.target] if bounce.kind == "delivered" else [],
                    origins=("reply", "bounce"),
                    terms=self._terms,
                )
        if is_new:
            self._changed()
            metrics.EMAIL_BOUNCES.labels(bounce.kind).inc()
            if bounce.fault is not None:
                label = LABELS.label(recipient.domain, owner_id=seen.owner_id)
                metrics.EMAIL_DOMAIN_BOUNCES.labels(label).inc()
            log.info(
                "mail bounced",
                email_id=str(recipient.email_id),
                recipient=recipient.position,
                kind=bounce.kind,
                detail=bounce.detail,
            )
        return BounceRecorded(kind=bounce.kind, is_new=is_new)
