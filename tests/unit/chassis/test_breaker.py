"""The circuit breaker of a service: the owners whose calls fail at once, and for how long."""

from __future__ import annotations

import pytest

from chassis.broker.breaker import Breaker
from support.clocks import Clock


def opened(*owners: str, clock: Clock) -> Breaker:
    """Return a breaker after calls of `owners` that were not answered."""
    breaker = Breaker(threshold=10, owners=3, pause_s=2, clock=clock)
    for owner in owners:
        breaker.failed(owner)
    return breaker


def test_an_open_breaker_lets_one_probe_through_per_pause() -> None:
    clock = Clock()
    breaker = opened(*["ann"] * 9, clock=clock)
    assert (breaker.is_open, breaker.allows("ann")) == (False, True)
    breaker.failed("ann")
    assert (breaker.is_open, breaker.allows("ann")) == (True, False)
    clock.now += 2.1
    assert [breaker.allows("ann") for _ in range(3)] == [True, False, False]
    breaker.failed("ann")
    assert breaker.is_open, "the probe was not answered either"
    breaker.succeeded()
    assert (breaker.is_open, breaker.allows("ann")) == (False, True)


@pytest.mark.parametrize("guests", [["ann"], ["ann", "bob"], ["ann", "bob", "eve"]])
def test_calls_of_some_owners_do_not_make_those_of_another_fail(guests: list[str]) -> None:
    breaker = opened(*guests * 100, clock=Clock())
    assert not any(map(breaker.allows, guests))
    assert [breaker.allows("neighbour") for _ in range(20)] == [True] * 20


def test_one_call_without_an_answer_is_enough_when_several_owners_had_none() -> None:
    clock = Clock()
    breaker = opened(*["ann"] * 8, "bob", clock=clock)
    breaker.failed("eve")
    assert breaker.is_open
    assert [breaker.allows("eve") for _ in range(2)] == [False, False]
    assert [breaker.allows("bob") for _ in range(2)] == [True, False], "its probe is its own"
    assert breaker.allows("neighbour")
    breaker.failed("neighbour")
    assert not breaker.allows("neighbour")


def test_few_calls_of_several_owners_open_nothing() -> None:
    breaker = opened("ann", "bob", "eve", "joe", clock=Clock())
    assert not breaker.is_open
    assert breaker.allows("ann")


def test_an_answer_to_anybody_closes_it_for_all() -> None:
    breaker = opened(*["ann", "bob", "eve"] * 10, clock=Clock())
    breaker.succeeded()
    assert not breaker.is_open
    breaker.failed("ann")
    assert all(map(breaker.allows, ("ann", "bob", "eve")))
