"""A burst of refusals pauses what it shows: mails of an owner, or the route. Bad addresses cause none."""

from __future__ import annotations

from itertools import count

import pytest

from emailer.sending.breaker import RefusalBreaker
from support.clocks import Clock


def test_refusals_to_many_domains_pause_the_mails_of_their_owner() -> None:
    breaker = RefusalBreaker(10)
    found = [breaker.note_refused("ann", f"{number}.example") for number in range(12)]
    assert found == [None] * 9 + ["owner"] * 3


def test_refusals_by_one_domain_do_not_open_the_breaker() -> None:
    breaker = RefusalBreaker(10)
    assert not any(breaker.note_refused("ann", "one.example") for _ in range(100))
    assert not any(breaker.note_refused(str(number), "one.example") for number in range(100))
    assert not breaker.is_distrusted


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
    assert not breaker.is_distrusted


@pytest.mark.parametrize("owners", [1, 2])
def test_one_owner_or_two_never_pause_the_route_not_even_right_after_a_start(owners: int) -> None:
    breaker = RefusalBreaker(10)
    found = {breaker.note_refused(f"{number % owners}", f"{number}.example") for number in range(200)}
    assert found == {None, "owner"}


def test_refusals_of_three_owners_pause_the_route_when_nobody_elses_mail_is_accepted() -> None:
    breaker = RefusalBreaker(9)
    found = [breaker.note_refused(f"{number % 3}", f"{number}.example") for number in range(9)]
    assert found == [None] * 8 + ["route"]


def test_mails_of_many_owners_that_send_one_each_pause_the_route() -> None:
    breaker = RefusalBreaker(9)
    for number in range(100):
        breaker.note_taken(f"early {number}")
    found = [breaker.note_refused(f"early {number}", f"{number}.example") for number in range(100)]
    # Their earlier mails were accepted: it takes nine of ten owners to know that this is over.
    assert found.index("route") == 89
    assert set(found[:89]) == {None}


def test_three_owners_do_not_pause_the_route_of_a_fourth_whose_mails_are_accepted() -> None:
    clock = Clock()
    breaker = RefusalBreaker(9, clock=clock)
    breaker.note_taken("dan")
    found = [breaker.note_refused(f"{number % 3}", f"{number}.example") for number in range(300)]
    assert set(found) == {None, "owner"}
    # He has sent nothing for a minute: of what the relay thinks of him, nothing is known any more.
    clock.now += 61
    assert [breaker.note_refused(f"{number % 3}", f"{number}.example") for number in range(9)][-1] == "route"


def test_what_one_owner_sends_is_a_third_of_what_shows_that_everybody_is_refused() -> None:
    breaker = RefusalBreaker(9)
    for number in range(100):
        assert breaker.note_refused("ann", f"{number}.example") != "route"
    for owner in ("bob", "cid"):
        assert breaker.note_refused(owner, "other.example") is None


def test_no_refusal_is_final_since_a_burst_until_a_mail_of_anybody_is_accepted() -> None:
    breaker, distrusted = RefusalBreaker(10), []
    breaker.note_taken("dan")
    for number in range(10):
        breaker.note_refused(f"{number % 2}", f"{number}.example")
        distrusted.append(breaker.is_distrusted)
    breaker.note_taken("dan")
    distrusted.append(breaker.is_distrusted)
    assert distrusted == [False] * 9 + [True, False]


def test_refusals_of_an_owner_beside_mails_that_are_accepted_are_its_own_and_final() -> None:
    breaker = RefusalBreaker(10)
    for number in range(20):
        breaker.note_refused("ann", f"{number}.example")
        breaker.note_taken("dan")
    assert not breaker.is_distrusted
    assert breaker.note_refused("ann", "last.example") == "owner"


def test_while_the_relay_is_distrusted_a_few_refusals_of_an_owner_pause_its_mails() -> None:
    clock = Clock()
    breaker, numbers = RefusalBreaker(10, clock=clock), count()

    def refusals(owner: str) -> int:
        return next(n for n in count(1) if breaker.note_refused(owner, f"{next(numbers)}.example"))

    assert (refusals("ann"), refusals("bob")) == (10, 3)
    clock.now += 61
    assert refusals("ann") == 3
    breaker.note_taken("bob")
    assert refusals("bob") == 10


def test_after_a_pause_of_the_route_a_refusal_of_each_of_three_owners_is_enough_for_the_next() -> None:
    clock = Clock()
    breaker, numbers = RefusalBreaker(9, clock=clock), count()

    def refusals() -> int:
        return next(
            n for n in count(1) if breaker.note_refused(f"{n % 3}", f"{next(numbers)}.example") == "route"
        )

    assert refusals() == 9
    clock.now += 61
    assert refusals() == 3
    breaker.note_taken("dan")
    clock.now += 61
    assert refusals() == 9


def test_owners_whose_mails_paused_the_route_are_remembered_until_the_relay_accepts_a_mail() -> None:
    breaker = RefusalBreaker(9)
    breaker.note_pause("ann")
    breaker.note_pause("bob")
    assert [breaker.is_blamed(owner) for owner in ("ann", "bob", "eve")] == [True, True, False]
    breaker.note_taken("eve")
    assert not breaker.is_blamed("ann")
