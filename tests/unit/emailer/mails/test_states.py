"""The status of a mail sums up its recipients."""

from __future__ import annotations

from itertools import combinations
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.emails import STORED_STATUSES, EmailStatus, RecipientStatus
from emailer.mails import states


@pytest.mark.parametrize(
    ("recipients", "status"),
    [
        ([], "failed"),
        (["queued", "queued"], "queued"),
        (["queued", "failed"], "queued"),
        (["queued", "delivered"], "sending"),
        (["queued", "deferred"], "sending"),
        (["sending", "failed"], "sending"),
        (["deferred", "delivered"], "deferred"),
        (["ambiguous", "failed"], "deferred"),
        (["held", "delivered", "failed"], "held"),
        (["held", "deferred"], "deferred"),
        (["delivered", "delivered"], "delivered"),
        (["delivered", "failed"], "partially_delivered"),
        (["delivered", "cancelled"], "partially_delivered"),
        (["failed", "expired"], "failed"),
        (["suppressed", "suppressed"], "suppressed"),
        (["suppressed", "delivered"], "partially_delivered"),
        (["suppressed", "queued"], "queued"),
        (["suppressed", "deferred"], "deferred"),
        (["suppressed", "held"], "held"),
        (["suppressed", "failed"], "failed"),
        (["suppressed", "expired"], "expired"),
        (["suppressed", "cancelled"], "cancelled"),
        (["cancelled", "expired"], "expired"),
        (["expired", "expired"], "expired"),
        (["cancelled"], "cancelled"),
    ],
)
def test_the_status_of_a_mail_sums_up_its_recipients(
    recipients: list[RecipientStatus], status: EmailStatus
) -> None:
    assert states.summed_up(recipients) == status


@given(st.lists(st.sampled_from(states.ALL), min_size=1))
def test_a_mail_is_over_exactly_when_all_its_recipients_are(recipients: list[RecipientStatus]) -> None:
    over = states.summed_up(recipients) not in ("queued", "sending", "deferred", "held")
    assert over == (set(recipients) <= states.FINAL)


@given(st.lists(st.sampled_from(states.ALL), min_size=1))
def test_a_mail_has_failed_only_where_a_recipient_has(recipients: list[RecipientStatus]) -> None:
    assert states.summed_up(recipients) != "failed" or "failed" in recipients


def test_every_status_of_a_mail_is_one_that_its_recipients_can_sum_up_to() -> None:
    sums = {states.summed_up(found) for size in (1, 2) for found in combinations(states.ALL, size)}
    assert sums == set(get_args(EmailStatus))
    assert sums - {"sending"} == set(STORED_STATUSES)


@given(st.permutations(["delivered", "failed", "deferred", "queued"]))
def test_the_order_of_recipients_does_not_matter(recipients: list[RecipientStatus]) -> None:
    assert states.summed_up(recipients) == "sending"
