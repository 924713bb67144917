"""What a caller writes about mails is understood in all the ways in which a mail may be written."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.emails import several
from gateway.emails.inputs import EmailsBulk, EmailsInput, EmailsQuery


@pytest.mark.parametrize("query", [EmailsQuery, EmailsBulk])
def test_a_filter_names_a_recipient_as_mails_have_it_however_its_domain_is_written(
    query: type[EmailsQuery] | type[EmailsBulk],
) -> None:
    for written in ("Ann@exämple.com", "Ann@EXÄMPLE.com", "Ann@xn--exmple-cua.com"):
        assert query(to=written).wanted().to == "Ann@xn--exmple-cua.com"
    assert query(tag="x").wanted().to is None


@pytest.mark.parametrize(
    ("mail", "count"),
    [
        ({"to": "ann@example.com"}, 1),
        ({"to": "ann@example.com", "cc": "bob@example.com", "bcc": ["cid@example.com"]}, 3),
        ({"to": ["ann@example.com", "bob@example.com"]}, 2),
        ({"to": ["ann@example.com"] * 60}, 50),
        ({}, 1),
        ({"to": 7}, 1),
        ("no mail", 1),
    ],
)
def test_each_mail_of_several_counts_as_many_as_it_has_recipients(mail: Any, count: int) -> None:
    assert several.count_recipients(EmailsInput.model_construct(emails=[mail])) == count
