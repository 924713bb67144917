"""The judgement of a refusal about the address that it names."""

from __future__ import annotations

import pytest

from emailer.suppression import faults
from emailer.suppression.faults import Fault


@pytest.mark.parametrize(
    ("code", "text", "fault"),
    [
        (550, "5.1.1 <ann@example.com>: Recipient address rejected: User unknown", "gone"),
        (550, "5.1.2 no such domain", "gone"),
        (556, "5.1.10 RESOLVER.ADR.RecipientNotFound", "gone"),
        (550, "User unknown, 5.1.1.", "gone"),
        (550, "User unknown", "hard"),
        (553, "mailbox name not allowed", "hard"),
        (550, "5.2.1 The account is disabled", "hard"),
        (550, "5.0.0 refused", "hard"),
        (550, "5.4.4 no MX for the domain", "hard"),
        # Of a recipient that Exchange Online does not have; and of a domain that a server does not relay for.
        (550, "5.4.1 Recipient address rejected: Access denied. AS(201806281)", "hard"),
        (550, "5.4.1 Relay Access Denied", "refused"),
        (450, "4.4.1 no answer from host", "soft"),
        (552, "5.2.2 mailbox full", "soft"),
        (552, "quota exceeded", "soft"),
        (450, "4.2.1 try later", "soft"),
        # Full mailboxes, of which not all servers say 552 or 5.2.2.
        (552, "5.0.0 sorry, your mailbox is full", "soft"),
        (550, "Mailbox quota exceeded", "soft"),
        (550, "5.2.0 user is over quota", "soft"),
        (550, "<ann@example.com> has a full mailbox", "soft"),
        # Of an address that Outlook.com does not have; and of a conversation.
        (550, "5.5.0 Requested action not taken: mailbox unavailable", "hard"),
        (554, "5.5.0 Error: transaction failed", "refused"),
        (550, "5.5.0 mailbox unavailable: blocked using a block list", "refused"),
        # Of Exchange Online: given up after some time; and a domain that does not exist.
        (550, "5.4.300 Message expired", "soft"),
        (550, "5.4.312 Message failed DNS query", "soft"),
        (550, "5.4.316 Message expired, connection refused", "soft"),
        (550, "5.4.310 DNS domain example.com does not exist", "hard"),
        (550, "5.7.1 Message rejected due to content", "refused"),
        (550, "5.7.26 unauthenticated sender 5.1.1", "refused"),
        (554, "Service unavailable; Client host blocked using zen.spamhaus.org", "refused"),
        (550, "rejected: listed on a DNSBL", "refused"),
        (550, "5.1.0 Sender reputation too low", "refused"),
        (550, "relaying denied", "refused"),
        (550, "5.1.8 bad sender", "refused"),
        (552, "5.3.4 too big", "refused"),
        (530, "Authentication required", "refused"),
        (554, "no", "refused"),
        (500, "what?", "refused"),
        (550, "15.1.1 is no status, nor is 5.1.1.7", "hard"),
    ],
)
def test_a_refusal_of_a_recipient_is_judged_by_status_code_and_words(
    code: int, text: str, fault: Fault
) -> None:
    assert faults.judge(code, text, at_recipient=True) == fault


@pytest.mark.parametrize(
    ("code", "text", "fault"),
    [
        # Only at RCPT is one failure enough.
        (550, "5.1.1 no such user", "hard"),
        (550, "5.0.0 refused", "refused"),
        (550, "no", "refused"),
        (550, "5.4.1 Access denied", "refused"),
        (554, "5.6.0 what a mail", "refused"),
        (552, "5.2.2 mailbox full", "soft"),
    ],
)
def test_a_refusal_of_the_content_says_less_of_the_address(code: int, text: str, fault: Fault) -> None:
    assert faults.judge(code, text, at_recipient=False) == fault
