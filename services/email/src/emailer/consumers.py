"""The message edge: the tables of messages and their handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from chassis import metrics
from chassis.broker.answering import Answer
from chassis.broker.envelope import Delivery, text
from chassis.broker.handlers import Handler, InTransaction
from chassis.deadlines import Deadline
from chassis.errors import NotFound
from chassis.postgres import Connection, Postgres
from contracts import headers as names
from contracts.emails import (
    CancelEmails,
    CountEmails,
    Email,
    EmailCounts,
    Emails,
    EmailsChanged,
    GetEmail,
    GetRawEmail,
    ListEmails,
    RescheduleEmail,
    ResendEmail,
    RetryEmails,
    SendEmail,
    SendPackedEmail,
)
from contracts.message import Message, Request
from emailer.mails import announcing, choosing, intake, marking, repository
from emailer.mails.announcing import StatusChange
from emailer.mails.domain_limits import DomainLimits
from emailer.sending.raw import RawMails
from emailer.settings import EmailSettings
from emailer.suppression.answers import SuppressionAnswers
from emailer.templates import repository as templates
from emailer.uploads import repository as uploads

GROUP = 60
# Of mails whose attachments came ahead of them: each may have nearly a megabyte beyond its message.
PACKED_GROUP = 6


def handlers(settings: EmailSettings, *, committed: Callable[[], None]) -> dict[type[Message], Handler]:
    """Return the handlers of commands; `committed` runs once their effects are committed."""
    # A thread of its own: a connection is held meanwhile, and must not wait for the shared thread pool.
    reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")

    async def store(connection: Connection, deliveries: Sequence[Delivery[SendEmail]]) -> None:
        commands = [delivery.message for delivery in deliveries]
        there = intake.KnownParts(
            await uploads.find(connection, intake.uploads_of(commands)),
            await uploads.read_parcels(connection, intake.parcels_of(commands)),
            await templates.resolve(connection, intake.templates_of(commands)),
        )
        # In a thread: the addresses, attachments and HTML of a whole group are parsed.
        accept = partial(
            intake.accept_all,
            commands,
            default_sender=settings.default_sender,
            expires_after_s=settings.expires_after_s,
            there=there,
        )
        accepted = await asyncio.get_running_loop().run_in_executor(reader, accept)
        accepted = await marking.marked(connection, accepted)
        traces = [_trace_of(delivery) for delivery in deliveries]
        stored = await repository.store(connection, accepted, traces=traces)
        fresh = [
            (one, trace)
            for one, trace in zip(accepted, traces, strict=True)
            if one.command.email_id in stored
        ]
        metrics.EMAIL_ATTEMPTS.labels("refused").inc(sum(one.status == "failed" for one, _ in fresh))
        metrics.EMAIL_ATTEMPTS.labels("suppressed").inc(sum(len(one.suppressed) for one, _ in fresh))
        ended = [
            StatusChange(one.command.email_id, one.command.owner_id, one.status, *trace)
            for one, trace in fresh
            if one.status != "queued"
        ]
        await announcing.announce(connection, ended)

    async def resend(connection: Connection, deliveries: Sequence[Delivery[ResendEmail]]) -> None:
        for delivery in deliveries:
            command, trace = delivery.message, _trace_of(delivery)
            if not await choosing.copy(connection, command, life_s=settings.expires_after_s, trace=trace):
                raise NotFound(f"E-mail {command.source_id} does not exist, or can no longer be sent again.")

    return {
        SendEmail: InTransaction(store, group=GROUP, committed=committed),
        SendPackedEmail: InTransaction(store, group=PACKED_GROUP, committed=committed),
        ResendEmail: InTransaction(resend, committed=committed),
    }


def _trace_of(delivery: Delivery[Any]) -> tuple[str | None, str | None]:
    """Return the traceparent and the id of the request that a message comes from."""
    return text(delivery.headers, names.TRACEPARENT), text(delivery.headers, names.REQUEST_ID)


def answers(
    settings: EmailSettings,
    postgres: Postgres,
    raw_mails: RawMails,
    *,
    changed: Callable[[], None],
) -> dict[type[Request], Answer]:
    """Return the answers to the requests on queue `email.rpc`."""
    limits = DomainLimits.read(settings.domain_limits)

    async def get(request: GetEmail, _: Deadline) -> Email:
        async with postgres.connection() as connection:
            return await choosing.find(connection, request, limits=limits)

    async def count(request: CountEmails, _: Deadline) -> EmailCounts:
        async with postgres.connection() as connection:
            return await repository.count(connection, owner_id=request.owner_id)

    async def list_(request: ListEmails, _: Deadline) -> Emails:
        async with postgres.connection() as connection:
            return await choosing.list_emails(connection, request)

    async def decide(request: CancelEmails | RetryEmails, _: Deadline) -> EmailsChanged:
        action = choosing.CANCEL if isinstance(request, CancelEmails) else choosing.RETRY
        async with postgres.connection() as connection:
            found = await choosing.decide(connection, request, action, life_s=settings.expires_after_s)
        changed()
        return found

    async def reschedule(request: RescheduleEmail, deadline: Deadline) -> Email:
        async with postgres.transaction() as connection:
            await choosing.reschedule(connection, request)
        changed()
        return await get(GetEmail(email_id=request.email_id, owner_id=request.owner_id), deadline)

    return {
        GetEmail: get,
        GetRawEmail: raw_mails.part,
        CountEmails: count,
        ListEmails: list_,
        CancelEmails: decide,
        RetryEmails: decide,
        RescheduleEmail: reschedule,
        **SuppressionAnswers(postgres, most_of_owner=settings.most_suppressions).table,
    }
