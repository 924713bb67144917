"""Masses of mails that wait in the broker delay nobody else's."""

from __future__ import annotations

from chassis.broker.envelope import command
from support.doubles.post_office import mail
from support.mail_stack import MailStack
from support.waiting import until

_MASSES = 5_000


async def test_a_mail_is_stored_before_the_masses_of_another_owner_that_wait_in_the_broker(
    stack: MailStack,
) -> None:
    masses = [mail(owner_id="flood", stream="bulk", to=[f"r{n}@example.org"]) for n in range(_MASSES)]
    for start in range(0, _MASSES, 500):
        messages = [command(one, tenant="flood") for one in masses[start : start + 500]]
        assert not any(await stack.gateway.publisher.publish_together(messages))
    password = mail(to=["reader@example.com"])
    await stack.send(password, message_id=password.email_id)
    async with stack.running():
        await stack.reaches(password, "delivered")
        before = await stack.stored_before(password.email_id)
        print(f"{before} of {_MASSES:,} commands that had waited for longer were stored before")
        # A group or two of each queue may be stored while the other one is opened.
        assert before < 500
        await until(lambda: stack.has_stored(_MASSES + 1))
