"""The mail merge operation."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from batch_processor.operations.email_send import OPERATION, Mail
from support.operation_world import World


def test_a_single_address_is_taken_as_a_list() -> None:
    assert Mail.model_validate({"to": "ann@example.org", "text": "hi"}).to == ["ann@example.org"]


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ({"text": "hi"}, "must name a recipient"),
        ({"to": ["ann@example.org"]}, "text or html must be given"),
        ({"to": ["ann@example.org"], "text": "hi", "colour": "red"}, "colour"),
    ],
)
def test_a_mail_without_recipient_or_content_is_refused(payload: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Mail.model_validate(payload)


async def test_an_item_sends_the_same_command_whenever_it_runs(world: World) -> None:
    mail = Mail.model_validate(
        {"from": "shop@example.org", "to": ["ann@example.org"], "subject": "s", "text": "hi"}
    )
    first = await OPERATION.run(mail, world.context(position=3))
    second = await OPERATION.run(mail, world.context(position=3))
    assert first == second
    (command, key), (again, same_key) = world.sent
    assert command == again
    assert key == same_key == command.email_id
    assert (command.sender, command.to, command.owner_id) == ("shop@example.org", ["ann@example.org"], "ann")
    assert first == {"email_id": str(command.email_id)}


async def test_two_items_of_a_batch_send_two_mails(world: World) -> None:
    mail = Mail.model_validate({"to": ["ann@example.org"], "text": "hi"})
    assert await OPERATION.run(mail, world.context(position=1)) != await OPERATION.run(
        mail, world.context(position=2)
    )
