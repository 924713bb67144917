"""Parcels that email could not take when their mails were accepted: kept here, and sent as soon as it can."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from chassis import beats, logging, metrics, redaction, shares, threads
from chassis.broker import envelope
from chassis.broker.envelope import Outgoing
from chassis.deadlines import Deadline
from chassis.errors import Overloaded, PayloadTooLarge, ServiceError, TooManyAtOnce
from chassis.outbox import OutboxRelay
from chassis.postgres import DATABASE_FAILURES, Connection, Postgres
from contracts.emails import SendPackedEmail
from contracts.mail import MOST_UPLOAD_BYTES
from gateway.emails import repository
from gateway.emails.parcels import Parcel, Parcels
from gateway.emails.repository import LEAST_COUNTED_BYTES, listed
from gateway.emails.waiting_mails import WaitingMails
from gateway.http.calls import Write

log = logging.get(__name__)

_LOOK_EVERY_S = 1.0
# A transaction that keeps a parcel has ended by then.
_COMMITTED_WITHIN_S = 60.0
# Sent side by side: of all owners, and of one.
MOST_AT_ONCE = 8
MOST_OF_AN_OWNER = 2
_SEND_WITHIN_S = 30.0
_RETRY_AFTER_S = 10.0
# Longer than all that is done with a parcel: it is sent by one gateway at a time.
_LEASE_S = 90.0


@dataclass(frozen=True, slots=True)
class ParcelLimits:
    """The bytes that waiting parcels may take with their messages: of one owner, and in all."""

    owner_bytes: int
    total_bytes: int


class WaitingParcels:
    """Keeps parcels with the acceptance of their mails, whose messages leave once email has the bytes.

    Every step may be repeated: email takes a parcel once, and the removal from here and the way of the
    messages into the outbox are one transaction. So a gateway may die between any two steps.
    """

    def __init__(
        self,
        postgres: Postgres,
        parcels: Parcels,
        relay: OutboxRelay,
        mails: WaitingMails,
        limits: ParcelLimits,
    ) -> None:
        self._postgres = postgres
        self._parcels = parcels
        self._relay = relay
        self._mails = mails
        self._limits = limits
        self._after = ""
        self._some_wait = asyncio.Event()
        self._kept_at = 0.0
        # From zero: the first of a series that appears is no increase.
        for outcome in ("kept", "sent", "failed", "refused"):
            metrics.PARCELS.labels(outcome)

    async def prepare(self, parcel: Parcel, mails: Sequence[SendPackedEmail], deadline: Deadline) -> Write:
        """Return the write that keeps a parcel and its mails, for the transaction that accepts the mails.

        The messages are encoded and the addresses parsed now, in a thread, when no connection is held. Raise
        `DeadlineExceeded` when that takes too long. The write raises what `keep` raises.
        """

        def write() -> tuple[list[Outgoing], list[list[Any]]]:
            messages = [
                envelope.command(mail, message_id=mail.email_id, tenant=parcel.owner_id) for mail in mails
            ]
            return messages, listed(mails)

        messages, columns = await threads.run(write, until=deadline)
        return partial(self.keep, parcel=parcel, messages=messages, columns=columns)

    async def keep(
        self,
        connection: Connection,
        *,
        parcel: Parcel,
        messages: Sequence[Outgoing],
        columns: Sequence[list[Any]],
    ) -> None:
        """Keep a parcel, the messages that name it, and the `columns` that lists show of their mails.

        Raise `TooManyAtOnce` while its owner has its share of the bytes, `Overloaded` while too many of all
        wait. Owners with some leave room for those with none.
        """
        if len(parcel.content) > MOST_UPLOAD_BYTES:
            raise PayloadTooLarge(f"Attachments may have at most {MOST_UPLOAD_BYTES} bytes.")
        size_bytes = len(parcel.content) + sum(len(message.body) for message in messages)
        counted = max(size_bytes, LEAST_COUNTED_BYTES)
        # Until the commit, so that requests that come together are counted, too.
        await repository.lock_room(connection)
        waiting = await repository.measure(connection, parcel.owner_id)
        if waiting.own + counted > self._limits.owner_bytes:
            raise TooManyAtOnce(
                "Too many of your attachments wait for the email service; try again later.",
                retry_after_s=_RETRY_AFTER_S,
            )
        most = self._limits.total_bytes
        if not shares.has_room_for(counted, own=waiting.own, held=waiting.total, most=most):
            if waiting.own:
                raise TooManyAtOnce(
                    f"Your attachments that wait for the email service have {waiting.own} bytes, and the rest"
                    " of the room is for other owners; try again later.",
                    retry_after_s=_RETRY_AFTER_S,
                )
            raise Overloaded(
                "Too many attachments wait for the email service; try again later.",
                retry_after_s=_RETRY_AFTER_S,
            )
        await repository.keep(connection, parcel, messages, size_bytes=size_bytes)
        await repository.note_mails(connection, columns)
        self._kept_at = time.monotonic()
        self._some_wait.set()
        metrics.PARCELS.labels("kept").inc()

    async def run(self) -> None:
        """Send what waits, for ever; what another gateway has kept is found by `measure`."""
        while True:
            await self._some_wait.wait()
            await beats.following(_LOOK_EVERY_S)
            try:
                await self.send_due()
            except (Overloaded, *DATABASE_FAILURES) as error:
                log.warning("waiting attachments could not be sent", reason=redaction.safe_message(error))

    async def send_due(self) -> None:
        """Send what is due, in turns of the owners, as long as email takes any of it."""
        is_more = True
        while is_more:
            self._relay.require_room()
            async with self._postgres.connection() as connection:
                due = await repository.claim(
                    connection,
                    after=self._after,
                    of_owner=MOST_OF_AN_OWNER,
                    most=MOST_AT_ONCE,
                    lease_s=_LEASE_S,
                )
            if not due:
                return
            self._after = max((parcel.owner_id <= self._after, parcel.owner_id) for parcel in due)[1]
            reasons = await asyncio.gather(*(self.send(parcel) for parcel in due))
            left = [parcel.id for parcel, reason in zip(due, reasons, strict=True) if reason is not None]
            if left:
                reason = next(filter(None, reasons))
                log.warning("attachments wait for the email service", parcels=len(left), reason=reason)
                async with self._postgres.connection() as connection:
                    await repository.postpone(connection, left)
            # While email takes nothing the next step would be in vain.
            is_more = len(left) < len(due)

    async def send(self, parcel: Parcel) -> str | None:
        """Send a parcel and let its messages leave; return why that must be tried again.

        If email refuses it for good, its mails have failed.
        """
        # Email answers owners in turn.
        shares.current.set(parcel.owner_id)
        try:
            try:
                await self._parcels.send(parcel, within_s=_SEND_WITHIN_S)
            except ServiceError as error:
                if error.retryable or error.status >= 500:
                    raise
                await self._mails.refuse(parcel.id, error.detail)
                metrics.PARCELS.labels("refused").inc()
                return None
            async with self._postgres.transaction() as connection:
                is_released = await repository.release(connection, parcel.id)
        except Exception as error:  # whatever it is, the neighbours of the parcel go on
            metrics.PARCELS.labels("failed").inc()
            return redaction.safe_message(error)
        if not is_released:
            return "a backup is being made, or another gateway was faster"
        self._relay.wake()
        metrics.PARCELS.labels("sent").inc()
        return None

    async def measure(self) -> None:
        """Measure what waits, for the metrics and for `run`."""
        async with self._postgres.connection() as connection:
            waiting = await repository.measure(connection)
        if waiting.total:
            self._some_wait.set()
        elif time.monotonic() - self._kept_at > _COMMITTED_WITHIN_S:
            self._some_wait.clear()
        metrics.PARCELS_BYTES.set(waiting.total)
        metrics.PARCELS_MOST_BYTES.set(self._limits.total_bytes)
        metrics.PARCELS_OLDEST.set(waiting.oldest_s)
