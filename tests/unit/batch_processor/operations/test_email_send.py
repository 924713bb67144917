"""The mail merge operation."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from batch_processor.operations.email_send import OPERATION
from contracts.mail import MOST_ITEM_CONTENT, MailItem
from gateway.batches.payload_checks import PayloadCheck
from support.operation_world import OperationWorld


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ({"text": "hi"}, "1 to 50 recipients"),
        ({"to": ["ann@example.org"]}, "text, html or both"),
        ({"to": ["ann@example.org"], "text": "hi", "colour": "red"}, "colour"),
        ({"to": ["nobody"], "text": "hi"}, "must be an e-mail address"),
        ({"to": ["ann@example.org"], "text": "hi", "subject": "a\r\nBcc: b@c.de"}, "one line"),
        ({f: [f"{f}{n}@example.org" for n in range(20)] for f in ("to", "cc", "bcc")}, "1 to 50 recipients"),
    ],
)
def test_an_item_is_refused_as_the_mail_endpoint_would(payload: dict[str, Any], problem: str) -> None:
    assert OPERATION.payload is MailItem
    with pytest.raises(ValidationError, match=problem):
        OPERATION.payload.model_validate(payload)


async def test_an_item_sends_the_same_command_whenever_it_runs(world: OperationWorld) -> None:
    mail = MailItem.model_validate(
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


async def test_two_items_of_a_batch_send_two_mails(world: OperationWorld) -> None:
    mail = MailItem.model_validate({"to": ["ann@example.org"], "text": "hi"})
    assert await OPERATION.run(mail, world.context(position=1)) != await OPERATION.run(
        mail, world.context(position=2)
    )


async def test_the_metadata_of_a_mail_are_sent_as_they_are_written(world: OperationWorld) -> None:
    text = '{"to": ["ann@example.org"], "text": "hi", "metadata" : { "price": 1.10,  "note": "\\u00e9" } }'
    mail = MailItem.model_validate_json(text)
    await OPERATION.run(mail, world.context(payload_text=text))
    (command, _) = world.sent[0]
    assert command.metadata_text == '{ "price": 1.10,  "note": "\\u00e9" }'
    assert command.metadata == {"price": 1.1, "note": "é"}


async def test_a_mail_without_metadata_is_not_read_again(world: OperationWorld) -> None:
    mail = MailItem.model_validate({"to": ["ann@example.org"], "text": "hi"})
    await OPERATION.run(mail, world.context(payload_text="never read"))
    assert world.sent[0][0].metadata_text is None


async def test_an_attachment_in_base64_goes_with_the_command_as_it_was_given(world: OperationWorld) -> None:
    file = {"filename": "a.txt", "content": "aGVsbG8=", "content_type": "text/plain", "content_id": "a"}
    mail = MailItem.model_validate({"to": ["ann@example.org"], "text": "hi", "attachments": [file]})
    await OPERATION.run(mail, world.context())
    (command, _) = world.sent[0]
    [attached] = command.attachments
    assert attached.model_dump(exclude_none=True) == file
    assert OPERATION.payload is not None
    with pytest.raises(ValidationError, match="content"):
        OPERATION.payload.model_validate(
            {"to": ["ann@example.org"], "text": "hi", "attachments": [{**file, "content": "no base64!"}]}
        )


def test_an_item_with_more_than_a_small_file_in_base64_is_refused_unless_it_was_accepted_before() -> None:
    def naming(**file: str) -> dict[str, Any]:
        return {"to": ["ann@example.org"], "text": "hi", "attachments": [{"filename": "a", **file}]}

    fits, larger = naming(content="A" * MOST_ITEM_CONTENT), naming(content="A" * (MOST_ITEM_CONTENT + 4))
    uploaded = naming(upload_id="01999999-9999-7999-8999-999999999999")
    listener = PayloadCheck(OPERATION.item_schema)
    assert (listener.find(fits), listener.find(uploaded)) == (None, None)
    refused = listener.find(larger)
    assert refused is not None
    assert refused.pointer == "/attachments/0/content"
    assert str(MOST_ITEM_CONTENT) in refused.detail
    assert "upload_id" in refused.detail
    for payload in (fits, uploaded, larger):
        MailItem.model_validate(payload)
