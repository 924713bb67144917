"""A burst of refusals opens the breaker; refusals that a list of bad addresses causes do not."""

from __future__ import annotations

from itertools import count

from emailer.sending.breaker import RefusalBreaker
from support.clocks import Clock


def test_refusals_to_many_domains_open_the_breaker() -> None:
    breaker = RefusalBreaker(10)
    found = [breaker.note_refused("ann", f"{number}.example") for number in range(10)]
    assert found == [None] * 9 + ["route"]
    assert breaker.is_tripped


def test_refusals_by_one_domain_do_not_open_the_breaker() -> None:
    breaker = RefusalBreaker(10)
    assert not any(breaker.note_refused("ann", "one.example") for _ in range(100))


def test_refusals_among_mails_that_are_taken_do_not_open_the_breaker() -> None:
    breaker = RefusalBreaker(10)
    for number in range(100):
        breaker.note_taken("ann")
        assert not breaker.note_refused("ann", f"{number}.example")


def test_refusals_over_a_long_time_do_not_open_the_breaker() -> None:
    clock = Clock()
    breaker = RefusalBreaker(10, clock=clock)
    for number in range(100):
        clock.now += 10
        assert not breaker.note_refused("ann", f"{number}.example")


def test_after_a_pause_a_few_refusals_are_enough_until_a_mail_is_taken() -> None:
    breaker, numbers = RefusalBreaker(10), count()

    def refusals() -> int:
        return next(n for n in count(1) if breaker.note_refused("ann", f"{next(numbers)}.example"))

    assert [refusals(), refusals()] == [10, 3]
    breaker.note_taken("ann")
    assert not breaker.is_tripped
    assert refusals() == 10


def test_a_burst_of_one_owner_beside_others_is_that_owners() -> None:
    breaker, numbers = RefusalBreaker(10), count()
    breaker.note_taken("bob")
    found = [breaker.note_refused("ann", f"{next(numbers)}.example") for _ in range(20)]
    assert found == ([None] * 9 + ["owner"]) * 2
    assert not breaker.is_tripped


def test_a_burst_over_two_owners_is_the_relays() -> None:
    breaker = RefusalBreaker(10)
    found = [breaker.note_refused(("ann", "bob")[number % 2], f"{number}.example") for number in range(10)]
    assert found == [None] * 9 + ["route"]
    assert breaker.is_tripped
