"""Attempts deliveries: signed requests to the URLs of owners, who share the places for them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import orjson

from chassis import logging, metrics, plain, redaction, shares
from chassis.egress.client import GuardedClient
from chassis.errors import ServiceError
from chassis.loop_turns import LoopTurns
from chassis.postgres import DATABASE_FAILURES, Postgres
from gateway.http.principal import Principal
from gateway.identity import authority
from gateway.identity.authority import Maker
from gateway.webhooks import delivery_repository, events, repository, signing, withdrawing
from gateway.webhooks.delivery_repository import ClaimedDelivery, DueWebhook
from gateway.webhooks.outcomes import MOST_ATTEMPTS, AttemptOutcome, judge
from gateway.webhooks.secret_safe import SecretSafe, UnreadableSecret

log = logging.get(__name__)

# Attempts of this gateway at a time, and of one webhook; a failing webhook has one at a time.
MOST_AT_ONCE = 32
MOST_OF_WEBHOOK = 4
ANSWER_WITHIN_S = 15.0
# The most bytes of an answer; only its status counts, and its beginning is kept.
MOST_ANSWER_BYTES = 64 * 1024
# About the memory that an attempt takes: what is received at once, the answer twice, and the request.
ATTEMPT_BYTES = 256 * 1024
_MOST_SHOWN = 200
# After this time another gateway takes over the attempt of a gateway that has died.
_LEASE_S = 60.0
# The time until the next look if nothing wakes it, and the least time between two looks,
_LOOK_EVERY_S = 10.0
_LOOK_AT_MOST_EVERY_S = 0.05
# also as a multiple of the time that the last one took, which is long with very many webhooks.
_REST = 4
_MOST_DUE = 1000
_WEIGHT = 40
# At a stop, for a claim that is being made: longer only if the database does not answer.
_CLAIM_WITHIN_S = 5.0
_FORBIDDEN = (
    "The key with which the webhook was made or last changed may not read what the event tells of any more: "
    "change the webhook with another one, and replay the delivery."
)


class Deliverer:
    """Attempts the deliveries that are due. A slow or failing receiver takes places of its owner only."""

    def __init__(
        self, postgres: Postgres, safe: SecretSafe, client: GuardedClient, *, turns: LoopTurns
    ) -> None:
        self._postgres = postgres
        self._safe = safe
        self._client = client
        self._turns = turns
        self._news = asyncio.Event()
        self._may_look = asyncio.Event()
        self._running: dict[asyncio.Task[None], ClaimedDelivery] = {}
        self._claiming = asyncio.Lock()
        self._is_closed = False

    def wake(self) -> None:
        """Look for deliveries now, because some have become due."""
        self._news.set()

    async def begin(self) -> None:
        """Let the looks begin: the database is there."""
        self._may_look.set()

    async def run(self) -> None:
        """Attempt deliveries as they become due, until cancelled; after `close`, none."""
        await self._may_look.wait()
        while True:
            self._news.clear()
            began = time.monotonic()
            try:
                pause_s = await self._look()
            except DATABASE_FAILURES as error:
                # Attempts in progress go on meanwhile.
                log.warning("webhooks wait for the database", reason=redaction.safe_message(error))
                pause_s = _LOOK_EVERY_S
            await asyncio.sleep(max(_LOOK_AT_MOST_EVERY_S, _REST * (time.monotonic() - began)))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._news.wait()

    async def close(self) -> None:
        """Give back the attempts in progress; another gateway, or this one after its start, repeats them."""
        self._is_closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLAIM_WITHIN_S), self._claiming:
                pass  # what is being claimed at this moment is given back, too
        running = dict(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        cut_off = [delivery for task, delivery in running.items() if task.cancelled()]
        if not cut_off:
            return
        try:
            async with self._postgres.connection() as connection:
                await delivery_repository.give_back(connection, cut_off)
        except DATABASE_FAILURES as error:
            # Their claims end by themselves, and another gateway takes them.
            log.warning("interrupted deliveries not given back", reason=redaction.safe_message(error))

    async def _look(self) -> float:
        """Begin the due deliveries that have a place; return the seconds until the next one is due."""
        if self._is_closed:
            return _LOOK_EVERY_S
        async with self._postgres.connection() as connection:
            found = await delivery_repository.due(connection, within_s=_LOOK_EVERY_S, limit=_MOST_DUE)
        due = [webhook for webhook in found if webhook.due_in_s <= 0]
        metrics.WEBHOOKS_DUE.set(len(due))
        wanted = self._places_for(due)
        async with self._claiming:
            if wanted and not self._is_closed:
                await self._begin(wanted)
        later = [webhook.due_in_s for webhook in found if webhook.due_in_s > 0]
        # What is due and has no place begins when an attempt ends, which is news.
        return min(later, default=_LOOK_EVERY_S)

    async def _begin(self, wanted: Mapping[UUID, int]) -> None:
        """Claim deliveries and begin their attempts.

        Those of events that the maker of the webhook may not learn of any more are withdrawn: who revokes a
        key expects that nothing more is sent on its word.
        """
        async with self._postgres.transaction() as connection:
            claimed = await delivery_repository.claim(connection, wanted, lease_s=_LEASE_S)
            makers = await authority.principals(connection, {one.maker for one in claimed})
            allowed, forbidden = _apart(claimed, makers)
            if forbidden:
                outcome = AttemptOutcome("failed", "withdrawn", error=_FORBIDDEN)
                attempt = _entry(outcome, at=datetime.now(UTC))
                await delivery_repository.withdraw_claimed(connection, forbidden, attempt=attempt)
        if forbidden:
            webhooks = sorted({str(one.webhook_id) for one in forbidden})
            log.warning("deliveries withdrawn: the makers of webhooks lack a scope", webhooks=webhooks)
            metrics.WEBHOOK_EVENTS.labels("withdrawn").inc(len(forbidden))
            # More may wait behind them.
            self._news.set()
        for delivery in allowed:
            task = asyncio.create_task(self._attempt(delivery))
            self._running[task] = delivery
            task.add_done_callback(self._ended)

    def _places_for(self, due: Sequence[DueWebhook]) -> dict[UUID, int]:
        """Return how many deliveries of each webhook may begin now; webhooks get places in turn."""
        of_owner = Counter(one.owner_id for one in self._running.values())
        of_webhook = Counter(one.webhook_id for one in self._running.values())
        held = len(self._running)
        places: Counter[UUID] = Counter()
        waiting = list(due)
        while waiting:
            left: list[DueWebhook] = []
            for webhook in waiting:
                most = 1 if webhook.is_failing else MOST_OF_WEBHOOK
                if of_webhook[webhook.id] >= most:
                    continue
                if not shares.has_room(of_owner[webhook.owner_id], held=held, most=MOST_AT_ONCE):
                    continue
                places[webhook.id] += 1
                of_webhook[webhook.id] += 1
                of_owner[webhook.owner_id] += 1
                held += 1
                left.append(webhook)
            waiting = left
        return dict(places)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._news.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its claim ends by itself, and the next attempt begins then.
            log.error("webhook attempt not recorded", exc_info=error)

    async def _attempt(self, delivery: ClaimedDelivery) -> None:
        """Send one request, and store its outcome."""
        # Outcomes may wait for the locks of a webhook: only as many of an owner as its share of connections.
        shares.current.set(delivery.owner_id)
        await self._turns.take(delivery.owner_id, weight=_WEIGHT)
        at, began = datetime.now(UTC), time.monotonic()
        outcome = await self._send(delivery, at)
        took_s = time.monotonic() - began
        metrics.WEBHOOK_ATTEMPTS.labels(outcome.kind).inc()
        metrics.WEBHOOK_ATTEMPT_SECONDS.observe(took_s)
        await self._store(delivery, outcome, _entry(outcome, at=at, took_s=took_s))

    async def _send(self, delivery: ClaimedDelivery, at: datetime) -> AttemptOutcome:
        if delivery.attempts > MOST_ATTEMPTS:
            return judge(delivery.attempts, error="Its attempts ended without an outcome.")
        try:
            secrets = [
                self._safe.open(content, delivery.sealed_with)
                for content in (delivery.secret, delivery.previous_secret)
                if content is not None
            ]
            request = signing.request(
                delivery.url,
                webhook_id=str(delivery.id),
                at=int(at.timestamp()),
                body=delivery.payload.encode(),
                secrets=secrets,
            )
            answer = await self._client.fetch(
                request, timeout_s=ANSWER_WITHIN_S, most_bytes=MOST_ANSWER_BYTES
            )
        except UnreadableSecret as error:
            return judge(delivery.attempts, error=f"The secret cannot be decrypted: {error}.")
        except ServiceError as error:
            return judge(delivery.attempts, error=error.detail)
        except Exception as error:  # whatever the receiver sent: it must not be tried without end
            log.error("webhook request failed", webhook=str(delivery.webhook_id), exc_info=error)
            return judge(
                delivery.attempts, error="The gateway could not send the request or read the answer."
            )
        return judge(
            delivery.attempts,
            status=answer.status,
            retry_after=answer.headers.get("retry-after"),
            answer=plain.text(answer.body[:_MOST_SHOWN].decode("utf-8", "replace")) or None,
        )

    async def _store(self, delivery: ClaimedDelivery, outcome: AttemptOutcome, attempt: str) -> None:
        webhook_id, url = delivery.webhook_id, delivery.url
        # The webhook comes before its deliveries, as for those who change it: in another order, both would
        # wait for each other.
        async with self._postgres.transaction() as connection:
            is_disabled = False
            if outcome.kind == "succeeded":
                await delivery_repository.note_success(connection, webhook_id, url)
            else:
                await delivery_repository.note_failure(connection, webhook_id, url, outcome.reason)
            if outcome.kind == "gone":
                is_disabled = await repository.disable(connection, webhook_id, url, outcome.reason)
            await delivery_repository.record(
                connection, delivery, outcome.delivery_status, retry_in_s=outcome.retry_in_s, attempt=attempt
            )
            if is_disabled:
                await repository.withdraw(connection, webhook_id, most=withdrawing.STEP)
        if is_disabled:
            try:
                await withdrawing.withdraw_all(self._postgres, webhook_id)
            except DATABASE_FAILURES as error:
                reason = redaction.safe_message(error)
                log.warning("deliveries not withdrawn yet", webhook=str(webhook_id), reason=reason)


def _apart(
    claimed: Sequence[ClaimedDelivery], makers: Mapping[Maker, Principal]
) -> tuple[list[ClaimedDelivery], list[ClaimedDelivery]]:
    """Return the deliveries of events that the makers of their webhooks may learn of, and the others."""
    allowed: list[ClaimedDelivery] = []
    forbidden: list[ClaimedDelivery] = []
    for delivery in claimed:
        maker = makers.get(delivery.maker)
        may = maker is not None and maker.may(events.scope_of(delivery.type))
        (allowed if may else forbidden).append(delivery)
    return allowed, forbidden


def _entry(outcome: AttemptOutcome, *, at: datetime, took_s: float = 0.0) -> str:
    """Return what the history of a delivery keeps of an attempt."""
    entry = {
        "at": at.isoformat(),
        "duration_ms": round(1000 * took_s),
        "status": outcome.status,
        "error": outcome.error,
        "answer": outcome.answer,
    }
    return orjson.dumps(entry).decode()
