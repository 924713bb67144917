"""Senders that the relay refuses by policy."""

from __future__ import annotations

from chassis import metrics
from emailer.sending import refused_senders
from emailer.sending.outcomes import SCHEDULE_S
from emailer.sending.refused_senders import RefusedSenders
from support.clocks import Clock
from support.measured import value_of

SENDER, OTHER = ("ann", "a.example"), ("ann", "b.example")


def test_mails_of_a_refused_sender_wait_by_the_schedule_and_those_of_others_do_not() -> None:
    clock = Clock()
    refused = RefusedSenders("policy", scale=1, clock=clock)
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
    refused = RefusedSenders("policy", scale=0.5, clock=clock)
    refused.note_refused(SENDER, "553 no")
    refused.note_taken(SENDER)
    assert refused.of(SENDER) is None
    assert refused.note_refused(SENDER, "553 no") == 30


def test_a_wait_that_is_not_to_be_longer_is_the_first() -> None:
    clock = Clock()
    refused = RefusedSenders("refusals", scale=1, clock=clock)
    for is_longer, wait_s in ((True, 60), (True, 300), (False, 60), (False, 60), (True, 300)):
        assert refused.note_refused(SENDER, "554 no", is_longer=is_longer) == wait_s
        clock.now += wait_s


def test_owners_that_wait_are_counted_once_each_and_no_more_when_they_are_tried_again() -> None:
    clock = Clock()
    refused = RefusedSenders("refusals", scale=1, clock=clock)
    gauge = metrics.EMAIL_PAUSED_OWNERS.labels("refusals")
    pauses = metrics.EMAIL_OWNER_PAUSES.labels("refusals")
    before = value_of(pauses)
    for sender in (SENDER, OTHER, ("bob", "a.example"), SENDER):
        refused.note_refused(sender, "554 no")
    refused.measure()
    assert (value_of(gauge), value_of(pauses) - before) == (2, 3)
    clock.now += 60
    refused.measure()
    assert value_of(gauge) == 0


def test_a_bounded_number_of_senders_is_known() -> None:
    refused = RefusedSenders("policy", scale=1, clock=Clock())
    for number in range(refused_senders.MOST + 1):
        refused.note_refused((str(number), "a.example"), "553 no")
    assert refused.of(("0", "a.example")) is None
    assert refused.of(("1", "a.example")) is not None


def test_however_many_senders_an_owner_has_those_of_others_stay_known() -> None:
    refused = RefusedSenders("policy", scale=1, clock=Clock())
    refused.note_refused(("bob", "b.example"), "553 no")
    for number in range(refused_senders.MOST):
        refused.note_refused(("ann", str(number)), "553 no")
    assert refused.of(("bob", "b.example")) is not None
    known = [refused.of(("ann", str(number))) is not None for number in range(refused_senders.MOST)]
    assert known.index(True) == refused_senders.MOST - refused_senders.MOST_OF_OWNER
    refused.note_taken(("ann", str(refused_senders.MOST - 1)))
    assert refused.of(("ann", str(refused_senders.MOST - 1))) is None
