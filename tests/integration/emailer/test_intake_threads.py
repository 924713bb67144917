"""Mails are read in threads of their own: storing them never waits for the threads that all share."""

from __future__ import annotations

import asyncio

from chassis.broker.envelope import Delivery, new_id
from chassis.broker.handlers import InTransaction
from chassis.settings import load
from contracts.emails import SendEmail
from emailer import consumers
from emailer.settings import EmailSettings
from support.busy_threads import busy_threads
from support.doubles.post_office import PostOffice, mail


async def test_mails_are_stored_while_all_threads_are_busy(post_office: PostOffice) -> None:
    settings = load(EmailSettings, {"RABBITMQ_URL": "amqp://x/", "POSTGRES_DSN": "postgresql://x/emailer"})
    handler = consumers.handlers(settings, committed=lambda: None)[SendEmail]
    assert isinstance(handler, InTransaction)
    command = mail(to=["ann@example.com"])
    async with busy_threads(), asyncio.timeout(20), post_office.postgres.transaction() as connection:
        await handler.function(connection, [Delivery(command, new_id(), 1, command.owner_id, {})])
    async with post_office.postgres.connection() as connection:
        assert await connection.fetchval("SELECT id FROM emails") == command.email_id
