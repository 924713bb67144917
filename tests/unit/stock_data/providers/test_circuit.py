"""The circuit breaker of a provider: which failures open it, and for how long."""

from __future__ import annotations

import weakref

import pytest

from stock_data.errors import (
    AuthFailed,
    BadData,
    Blocked,
    NotEntitled,
    ProviderFailure,
    QuotaExceeded,
    UpstreamDown,
)
from stock_data.providers.circuit import Circuit
from support.clocks import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    return Circuit(threshold=3, clock=clock)


def is_open(circuit: Circuit) -> bool:
    try:
        circuit.require_closed()
    except ProviderFailure:
        return True
    return False


def test_a_used_up_quota_is_respected_until_its_reset(circuit: Circuit, clock: Clock) -> None:
    circuit.failed(QuotaExceeded("200 a minute", retry_after_s=12))
    clock.now += 11
    with pytest.raises(QuotaExceeded, match="200 a minute") as caught:
        circuit.require_closed()
    assert caught.value.retry_after_s == 1
    clock.now += 1
    assert not is_open(circuit)


def test_a_reset_far_in_the_future_counts_a_minute(circuit: Circuit, clock: Clock) -> None:
    circuit.failed(QuotaExceeded(retry_after_s=86_400))
    clock.now += 60
    assert not is_open(circuit)


@pytest.mark.parametrize("error", [AuthFailed(), Blocked()])
def test_a_refused_key_or_a_block_page_closes_the_way_for_a_minute(
    circuit: Circuit, clock: Clock, error: ProviderFailure
) -> None:
    circuit.failed(error)
    clock.now += 59
    assert is_open(circuit)
    clock.now += 1
    assert not is_open(circuit)


@pytest.mark.parametrize("error", [NotEntitled(), BadData()])
def test_a_failure_of_one_request_does_not_open_the_circuit(circuit: Circuit, error: ProviderFailure) -> None:
    circuit.failed(error)
    assert not is_open(circuit)


def test_three_consecutive_outages_open_the_circuit_for_five_seconds(circuit: Circuit, clock: Clock) -> None:
    circuit.failed(UpstreamDown())
    circuit.failed(UpstreamDown())
    assert not is_open(circuit)
    circuit.failed(UpstreamDown())
    assert is_open(circuit)
    clock.now += 5
    assert not is_open(circuit)


def test_after_the_pause_one_more_outage_is_enough(circuit: Circuit, clock: Clock) -> None:
    for _ in range(3):
        circuit.failed(UpstreamDown())
    clock.now += 5
    assert not is_open(circuit)
    circuit.failed(UpstreamDown())
    assert is_open(circuit)


def test_outages_of_a_few_owners_close_the_way_for_no_other(circuit: Circuit, clock: Clock) -> None:
    for owner in "AABAABB":
        circuit.failed(UpstreamDown("slow"), owner)
    with pytest.raises(UpstreamDown, match="slow"):
        circuit.require_closed("AB")
    for owners in ("C", "AC"):
        circuit.require_closed(owners)
    circuit.failed(UpstreamDown(), "C")
    with pytest.raises(UpstreamDown):
        circuit.require_closed("C")
    circuit.succeeded()
    circuit.require_closed("A")


def test_a_call_that_several_owners_share_is_one_outage(circuit: Circuit) -> None:
    for _ in range(2):
        circuit.failed(UpstreamDown(), "ABC")
        for owner in "ABC":
            circuit.require_closed(owner)
    circuit.failed(UpstreamDown(), "DEF")
    for owner in "DEF":
        with pytest.raises(UpstreamDown):
            circuit.require_closed(owner)


def test_an_answer_in_between_starts_the_count_again(circuit: Circuit) -> None:
    circuit.failed(UpstreamDown())
    circuit.failed(UpstreamDown())
    circuit.succeeded()
    circuit.failed(UpstreamDown())
    assert not is_open(circuit)


@pytest.mark.parametrize("failure", [UpstreamDown, Blocked])
def test_a_circuit_keeps_no_failure_with_what_was_at_work(
    circuit: Circuit, failure: type[ProviderFailure]
) -> None:
    def fail() -> weakref.ref[ProviderFailure]:
        try:
            raise failure("down")
        except ProviderFailure as error:
            circuit.failed(error)
            return weakref.ref(error)

    assert fail()() is None
