"""How a mail's status sums up its recipients."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.emails import EmailStatus, RecipientStatus
from emailer import states


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
        (["suppressed"], "failed"),
        (["expired", "expired"], "expired"),
        (["cancelled"], "cancelled"),
    ],
)
def test_recipients_are_summed_up(recipients: list[RecipientStatus], status: EmailStatus) -> None:
    assert states.summed_up(recipients) == status


@given(st.lists(st.sampled_from(states.ALL), min_size=1))
def test_a_mail_is_over_exactly_when_all_its_recipients_are(recipients: list[RecipientStatus]) -> None:
    over = states.summed_up(recipients) not in ("queued", "sending", "deferred", "held")
    assert over == (set(recipients) <= states.FINAL)


@given(st.permutations(["delivered", "failed", "deferred", "queued"]))
def test_the_order_does_not_matter(recipients: list[RecipientStatus]) -> None:
    assert states.summed_up(recipients) == "sending"
