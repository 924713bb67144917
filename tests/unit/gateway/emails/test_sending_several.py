"""Several mails at once: what takes long is done beside the event loop."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any, cast
from unittest.mock import Mock

import pytest

from chassis.deadlines import Deadline
from chassis.errors import InvalidInput
from contracts import addresses
from contracts.addresses import MOST_FOREIGN_DOMAINS
from contracts.domains import AllowedSenders
from contracts.emails import SendEmail
from contracts.mail import Mail
from contracts.message import FieldError
from contracts.parsed_addresses import ParsedAddress
from contracts.scopes import Scope
from gateway.domains.senders import VerifiedSenders
from gateway.emails import several
from gateway.emails.inputs import EmailsInput
from gateway.emails.service import EmailService
from gateway.http.calls import Call
from gateway.http.principal import Principal
from gateway.http.replies import JSON

OWNER = Principal(7, "Ann", "member", "k", frozenset({Scope.EMAILS_SEND}))


class Around:
    """The uploads and parcels around several mails, which it refuses or lets pass."""

    def __init__(self, *, refuses: bool) -> None:
        self._errors = [FieldError(pointer="/attachments", detail="no")] if refuses else []

    async def misfits(self, _: Call, mails: Collection[Any]) -> list[list[FieldError]]:
        return [self._errors for _ in mails]

    async def send_ahead(self, commands: list[SendEmail], _: Deadline) -> tuple[list[SendEmail], None]:
        return commands, None


@pytest.mark.parametrize("refuses", [True, False])
async def test_several_mails_are_read_and_their_commands_written_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    on_loop: list[bool] = []

    def parse(text: str) -> ParsedAddress:
        on_loop.append(threading.current_thread() is threading.main_thread())
        return original(text)

    original = addresses.parse
    monkeypatch.setattr(addresses, "parse", parse)
    senders = VerifiedSenders(Mock(), AllowedSenders())
    around, other = cast(Any, Around(refuses=refuses)), Mock()
    service = EmailService(
        other, other, around, around, other, other, other, senders, message_id_domain="x.example"
    )
    mails = [
        {"from": f"a@bücher-{number}.example", "to": ["b@y.example"], "subject": "s", "text": "t"}
        for number in range(3)
    ]
    body = EmailsInput.model_validate({"emails": mails})
    call = Call(OWNER, Deadline.after(5), JSON)
    if refuses:
        with pytest.raises(InvalidInput) as caught:
            await service.send_several(call, body)
        assert [error.pointer for error in caught.value.errors] == [
            f"/emails/{number}/attachments" for number in range(3)
        ]
    else:
        assert (await service.send_several(call, body)).accepted == 3
        [works] = [each.args[1] for each in other.accept_all.call_args_list]
        assert [work.messages[0].message_type for work in works] == [SendEmail.message_type] * 3
    assert len(on_loop) >= 3
    assert not any(on_loop)


def test_mails_with_very_many_domains_beyond_ascii_are_refused_before_any_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def mail(*to: str) -> dict[str, Any]:
        return {"from": "a@ü.com", "to": list(to), "text": ""}

    domains = [f"ü{number}.com" for number in range(MOST_FOREIGN_DOMAINS - 1)]
    mails = [mail(f"a@{domain}", f"Ü <b@{domain}>", "ü@x.com") for domain in domains]
    found, senders = several.read_all(mails)
    assert all(isinstance(each, Mail) for each in found)
    assert set(senders.values()) == {"xn--tda.com"}

    monkeypatch.setattr(several, "read", Mock(side_effect=AssertionError("it was checked")))
    for one_more in (mail("a@é.com"), mail("a@xn--9ca.com"), {"reply_to": "a@é.com"}):
        with pytest.raises(InvalidInput, match="domains beyond ASCII"):
            several.read_all([*mails, one_more])
