"""Masses of mails that wait in the broker delay nobody else's."""

from __future__ import annotations

import pytest

from chassis.broker.envelope import command
from support.doubles.post_office import mail
from support.mail_stack import MailStack
from support.waiting import until


# More than is prefetched: 20 bundles of up to 64 commands of `email.bulk`, 60 of `email.send`.
@pytest.mark.parametrize(
    ("stream", "masses_count", "most_before"), [("bulk", 3_000, 500), ("transactional", 6_000, 2_000)]
)
async def test_a_mail_is_stored_before_the_masses_of_another_owner_that_wait_in_the_broker(
    stack: MailStack, stream: str, masses_count: int, most_before: int
) -> None:
    masses = [mail(owner_id="flood", stream=stream, to=[f"r{n}@example.org"]) for n in range(masses_count)]
    for start in range(0, masses_count, 500):
        messages = [command(one, tenant="flood") for one in masses[start : start + 500]]
        assert not any(await stack.gateway.publisher.publish_together(messages))
    password = mail(to=["reader@example.com"])
    await stack.send(password, message_id=password.email_id)
    async with stack.running():
        await stack.reaches(password, "delivered")
        before = await stack.stored_before(password.email_id)
        print(f"{before} of {masses_count:,} commands that had waited for longer were stored before")
        # A group or two of each queue may be stored while the other one is opened, and of transactional mails
        # those that stay in front of it.
        assert before < most_before
        await until(lambda: stack.has_stored(masses_count + 1), timeout_s=60)
