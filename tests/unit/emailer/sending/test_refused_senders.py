"""Senders that the relay refuses by policy."""

from __future__ import annotations

from emailer.sending import refused_senders
from emailer.sending.outcomes import SCHEDULE_S
from emailer.sending.refused_senders import RefusedSenders
from support.clocks import Clock

SENDER, OTHER = ("ann", "a.example"), ("ann", "b.example")


def test_mails_of_a_refused_sender_wait_by_the_schedule_and_those_of_others_do_not() -> None:
    clock = Clock()
    refused = RefusedSenders(scale=1, clock=clock)
    for wait_s in SCHEDULE_S:
        assert refused.of(SENDER) is None
        assert refused.note_refused(SENDER, "553 no") == wait_s
        clock.now += wait_s / 2
        # By another connection: it counts once.
        assert refused.note_refused(SENDER, "553 still no") == wait_s / 2
        assert refused.of(SENDER) == (wait_s / 2, "553 no")
        assert refused.of(OTHER) is None
        clock.now += wait_s / 2


def test_a_sender_that_is_accepted_again_starts_from_the_first_delay() -> None:
    clock = Clock()
    refused = RefusedSenders(scale=0.5, clock=clock)
    refused.note_refused(SENDER, "553 no")
    refused.note_taken(SENDER)
    assert refused.of(SENDER) is None
    assert refused.note_refused(SENDER, "553 no") == 30


def test_a_bounded_number_of_senders_is_known() -> None:
    refused = RefusedSenders(scale=1, clock=Clock())
    for number in range(refused_senders.MOST + 1):
        refused.note_refused(("ann", str(number)), "553 no")
    assert refused.of(("ann", "0")) is None
    assert refused.of(("ann", "1")) is not None
