"""No mail is begun after its expiry, wherever it has waited until then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from support.doubles.post_office import DispatcherTerms, PostOffice, mail
from support.waiting import until


async def test_a_mail_that_waited_for_its_connection_too_long_is_not_begun(post_office: PostOffice) -> None:
    post_office.server.delay_s = 0.4
    command = mail(expires_at=datetime.now(UTC) + timedelta(seconds=0.6))
    await post_office.accept(command)
    async with post_office.delivering():
        # Greeting and EHLO take longer than the mail may.
        email = await post_office.reaches(command, "expired")
    assert email.recipients[0].attempts == []
    assert not any(line.startswith("MAIL") for line in post_office.server.commands)


async def test_no_mail_begins_a_second_after_its_time_and_none_expires_before_it(
    post_office: PostOffice,
) -> None:
    begun: dict[str, datetime] = {}

    class Commands(list[str]):
        """The commands of the relay's clients; it notes when each recipient was named first."""

        def append(self, line: str) -> None:
            begun.setdefault(line, datetime.now(UTC))
            super().append(line)

    post_office.server.commands = Commands()
    # One connection, at which each mail waits for those before it: of every second one the time is over soon.
    post_office.server.delay_s = 0.1
    start = datetime.now(UTC)
    commands = [
        mail(
            to=[f"r{number}@example.com"],
            expires_at=start + timedelta(seconds=20 if number % 2 else 0.2 + number / 5),
        )
        for number in range(10)
    ]
    await post_office.accept(*commands)
    ended: dict[UUID, datetime] = {}

    async def all_ended() -> bool:
        async with post_office.postgres.connection() as connection:
            rows = await connection.fetch("SELECT id, ended_at FROM emails WHERE ended_at IS NOT NULL")
        ended.update({row["id"]: row["ended_at"] for row in rows})
        return len(ended) == len(commands)

    async with post_office.delivering(DispatcherTerms(connections=1)):
        await until(all_ended)
    emails = [await post_office.read(command) for command in commands]
    assert {email.status for email in emails} == {"delivered", "expired"}
    for email, command in zip(emails, commands, strict=True):
        end = command.expires_at
        assert end is not None
        at = begun.get(f"RCPT TO:<{email.recipients[0].address}>")
        if email.status == "expired":
            assert at is None
            assert ended[email.id] >= end
        else:
            assert at is not None
            assert at < end + timedelta(seconds=1)


async def test_a_mail_expires_while_the_route_is_paused(post_office: PostOffice) -> None:
    await post_office.server.stop()
    late = mail(expires_at=datetime.now(UTC) + timedelta(seconds=1))
    waiting = mail()
    await post_office.accept(late, waiting)
    async with post_office.delivering(DispatcherTerms(pause_s=60)) as dispatcher:
        await until(lambda: dispatcher.is_route_paused)
        email = await post_office.reaches(late, "expired")
        assert (await post_office.read(waiting)).status == "queued"
    await post_office.server.start()
    assert email.recipients[0].attempts == []
    assert [event["status"] for event in await post_office.events()] == ["expired"]
