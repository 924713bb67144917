"""No owner waits for the mails, the slow templates or the uploads of another."""

from __future__ import annotations

import asyncio
from itertools import product
from uuid import UUID

import pytest

from chassis.broker.envelope import new_id
from chassis.deadlines import Deadline
from chassis.postgres import Postgres
from contracts.emails import SendEmail
from contracts.templates import SaveTemplate, TemplateSource
from emailer.mails.stored_mail import StoredMail
from emailer.templates.answers import TemplateAnswers
from emailer.templates.rendering import TemplateRenderer
from emailer.writing.preparing import MailPreparation
from emailer.writing.writer import MailWriter
from support.doubles.post_office import DispatcherTerms, PostOffice, mail
from support.doubles.smtp import SAY_NOTHING, Step
from support.waiting import until


class Waiting(MailPreparation):
    """A preparation whose templates of the owner `slow` take until `end` is set."""

    def __init__(self, postgres: Postgres, renderer: TemplateRenderer, writer: MailWriter) -> None:
        super().__init__(postgres, renderer, writer)
        self.end = asyncio.Event()
        self.begun = 0

    async def fill(self, mail: StoredMail) -> StoredMail:
        """Wait where the owner is the slow one."""
        if mail.owner_id == "slow":
            self.begun += 1
            await self.end.wait()
        return await super().fill(mail)


async def keep_template(post_office: PostOffice, owner_id: str, text: str) -> None:
    answers = TemplateAnswers(post_office.postgres, post_office.renderer, most_of_owner=3)
    source = TemplateSource(subject="Hello", text=text)
    await answers.save(SaveTemplate(owner_id=owner_id, name="welcome", source=source), Deadline(float("inf")))


def of_template(owner_id: str, recipient: str) -> SendEmail:
    used = {"name": "welcome", "data": {}}
    return mail(owner_id=owner_id, to=[recipient], subject="", text=None, template=used)


async def test_mails_leave_while_templates_of_another_owner_are_rendered(post_office: PostOffice) -> None:
    await keep_template(post_office, "slow", "Hello")
    await keep_template(post_office, "shop", "Your code is 123456")
    post_office.preparation = waiting = Waiting(
        post_office.postgres, post_office.renderer, post_office.writer
    )
    slow = [of_template("slow", f"r{number}@example.com") for number in range(10)]
    slow += [of_template("slow", f"r@{number}.example") for number in range(10)]
    await post_office.accept(*slow)
    async with post_office.delivering(DispatcherTerms(connections=4, window=100)):
        await until(lambda: waiting.begun > 0)
        for number in range(10):
            plain = mail(owner_id="shop", to=[f"plain-{number}@example.com"])
            made = of_template("shop", f"made-{number}@example.com")
            await post_office.accept(plain, made)
            await post_office.reaches(plain, "delivered")
            await post_office.reaches(made, "delivered")
        assert waiting.begun == 1
        waiting.end.set()
        for command in slow:
            await post_office.reaches(command, "delivered")


async def store_upload(post_office: PostOffice, owner_id: str) -> UUID:
    upload_id = new_id()
    async with post_office.postgres.connection() as connection:
        await connection.execute(
            "INSERT INTO uploads (id, owner_id, size_bytes, completed_at, expires_at)"
            " VALUES ($1, $2, 4, now(), now() + interval '1 day')",
            *(upload_id, owner_id),
        )
        await connection.execute("INSERT INTO upload_parts VALUES ($1, 0, 'file')", upload_id)
    return upload_id


async def with_upload(post_office: PostOffice, owner_id: str, recipient: str) -> SendEmail:
    file = {"filename": "a.bin", "upload_id": await store_upload(post_office, owner_id)}
    return mail(owner_id=owner_id, to=[recipient], attachments=[file])


async def test_mails_with_files_leave_beside_domains_that_never_answer_and_wait_without_a_query(
    post_office: PostOffice,
) -> None:
    stuck = [
        await with_upload(post_office, owner_id, f"r@{domain}.example")
        for owner_id, domain in (("a", "tarpit"), ("b", "tarpit"), ("c", "swamp"), ("d", "bog"))
    ]
    for command in stuck:
        post_office.server.script(command.to[0], Step("rcpt", SAY_NOTHING))
    known, quick = mail(owner_id="e"), await with_upload(post_office, "e", "other@example.com")
    await post_office.accept(known, *stuck)
    async with post_office.delivering(DispatcherTerms(connections=8, timeout_s=60)):
        await post_office.reaches(known, "delivered")
        await until(lambda: sum(line.startswith("RCPT TO:<r@") for line in post_office.server.commands) == 2)
        await post_office.accept(quick)
        await post_office.reaches(quick, "delivered")
        async with post_office.postgres.connection() as connection:
            states = await connection.fetch("SELECT status FROM recipients WHERE address LIKE 'r@%'")
        # All are in hand: none goes back and forth while it waits for room.
        assert {row["status"] for row in states} == {"sending"}
        # Nobody need wait for its answers any more.
        await post_office.server.stop()


@pytest.mark.parametrize("owners", [1, 3])
async def test_a_mail_leaves_while_large_ones_of_others_wait_for_a_relay_that_takes_none_of_them(
    post_office: PostOffice, owners: int
) -> None:
    # The proportions of the default window and mails of 700 kB.
    window_bytes, text = 768 << 10, "x" * 16_000
    large = [
        mail(owner_id=f"press-{number % owners}", to=[f"r{number}@large.example"], text=text)
        for number in range(140)
    ]
    for command in large:
        post_office.server.script(command.to[0], Step("content", SAY_NOTHING))
    first, second = mail(owner_id="shop"), mail(owner_id="shop")
    await post_office.accept(*large, first)
    terms = DispatcherTerms(connections=8, window=400, window_bytes=window_bytes, timeout_s=60)
    async with post_office.delivering(terms):
        await post_office.reaches(first, "delivered")
        await until(lambda: post_office.server.attempts)
        # Now as much is in hand as there will ever be.
        await post_office.accept(second)
        await post_office.reaches(second, "delivered")
        async with post_office.postgres.connection() as connection:
            in_flight = await connection.fetch(
                "SELECT owner_id, sum(2 * size_bytes) AS bytes, max(2 * size_bytes) AS largest"
                " FROM recipients WHERE status = 'sending' GROUP BY owner_id"
            )
        assert len(in_flight) == owners
        assert all(row["bytes"] < window_bytes // 2 + row["largest"] for row in in_flight)
        assert sum(row["bytes"] for row in in_flight) < window_bytes
        await post_office.server.stop()


@pytest.mark.parametrize(
    ("owners", "domains", "streams"),
    [
        (1, 10, ["transactional"]),
        (1, 1, ["transactional", "bulk"]),
        (4, 1, ["transactional"]),
        (4, 4, ["bulk"]),
    ],
)
async def test_a_mail_leaves_while_others_have_very_many_to_domains_that_never_answer(
    post_office: PostOffice, owners: int, domains: int, streams: list[str]
) -> None:
    stuck = [
        mail(owner_id=f"press-{owner}", to=[f"r{number}@tarpit-{domain}.example"], stream=stream)
        for stream, owner, domain, number in product(streams, range(owners), range(domains), range(40))
    ]
    for command in stuck:
        post_office.server.script(command.to[0], Step("rcpt", SAY_NOTHING))
    await post_office.accept(*stuck)
    async with post_office.delivering(DispatcherTerms(connections=8, window=40, timeout_s=60)):
        await until(lambda: post_office.server.attempts)
        for number in range(3):
            other = mail(owner_id="shop", to=[f"reader-{number}@example.com"])
            await post_office.accept(other)
            await post_office.reaches(other, "delivered")
        # Nobody need wait for its answers any more.
        await post_office.server.stop()
