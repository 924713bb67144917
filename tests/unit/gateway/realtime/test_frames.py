"""A client's frames are counted before they are parsed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from gateway.realtime.frames import FrameBudget
from support.clocks import Clock

BURST = 500


def client_frame(payload: bytes, opcode: Opcode = Opcode.TEXT) -> bytes:
    return Frame(opcode, payload).serialize(mask=True)


@given(
    st.lists(st.sampled_from([0, 1, 125, 126, 200, 65_535, 66_000]), min_size=1, max_size=12),
    st.lists(st.integers(1, 70_000), max_size=30),
)
def test_frames_are_counted_wherever_the_network_cuts_them(sizes: list[int], cuts: list[int]) -> None:
    data = b"".join(client_frame(b"x" * size) for size in sizes)
    budget = FrameBudget(Clock())
    # What is left of the burst is as many frames as will come.
    assert budget.allows(client_frame(b"") * (BURST - len(sizes)))
    position = 0
    for cut in [*cuts, len(data)]:
        assert budget.allows(data[position : position + cut])
        position += cut
    assert not budget.allows(client_frame(b""))


def test_a_burst_is_allowed_and_what_follows_at_the_rate_of_the_budget() -> None:
    clock = Clock()
    budget = FrameBudget(clock)
    empty = client_frame(b"")
    assert budget.allows(empty * BURST)
    clock.now += 1
    assert budget.allows(empty * 100)
    assert not budget.allows(empty)


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG, Opcode.CLOSE])
def test_a_control_frame_counts_as_ten(opcode: Opcode) -> None:
    clock = Clock()
    budget = FrameBudget(clock)
    control = client_frame(b"p" * 100, opcode)
    assert budget.allows(control * (BURST // 10))
    clock.now += 1
    assert budget.allows(control * 10)
    assert not budget.allows(control)


def test_counting_a_flood_stops_at_the_end_of_the_budget() -> None:
    clock = Clock()
    budget = FrameBudget(clock)
    flood = client_frame(b"", Opcode.CONT) * 100_000
    assert not budget.allows(flood)
    # The frames behind the end of the budget cost nothing of the next one.
    clock.now += 0.03
    assert budget.allows(client_frame(b""))
