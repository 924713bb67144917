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


async def test_what_an_owner_has_too_much_of_is_not_stored_after_the_bulk_mails_of_another(
    stack: MailStack,
) -> None:
    newsletter = [mail(owner_id="press", stream="bulk", to=[f"r{n}@example.org"]) for n in range(3_000)]
    orders = [mail(owner_id="shop", to=[f"buyer{n}@example.com"]) for n in range(1_500)]
    for commands in (newsletter, orders):
        for start in range(0, len(commands), 500):
            messages = [
                command(one, tenant=one.owner_id, message_id=one.email_id)
                for one in commands[start : start + 500]
            ]
            assert not any(await stack.gateway.publisher.publish_together(messages))
    async with stack.running():
        await until(lambda: stack.has_stored(len(newsletter) + len(orders)), timeout_s=120)
    before = max([await stack.stored_before(one.email_id) for one in orders[-64:]])
    total = len(newsletter) + len(orders)
    print(f"{before:,} of {total:,} commands were stored before the last of what one owner had too much of")
    # The three queues are consumed alike, and two of them have orders.
    assert before < len(orders) + 2_000
