"""Several relays: how they are written, and which one comes first."""

from __future__ import annotations

import pytest

from emailer.sending import hosts
from emailer.sending.relays import Relays
from emailer.sending.smtp import SmtpRelay
from support.clocks import Clock

FIRST, SECOND, THIRD = (SmtpRelay(f"relay-{number}.example", 25) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("smtp.example.com", [("smtp.example.com", None)]),
        ("a.example:2525, 127.0.0.1", [("a.example", 2525), ("127.0.0.1", None)]),
        ("::1", [("::1", None)]),
        ("[::1]:25,[fe80::1]", [("::1", 25), ("fe80::1", None)]),
        ("a.example:25,a.example:26", [("a.example", 25), ("a.example", 26)]),
    ],
)
def test_relays_are_hosts_with_or_without_a_port(text: str, found: list[tuple[str, int | None]]) -> None:
    assert hosts.read(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "a.example,", "a b", "a.example:", "a.example:smtp", "a.example:0", "a:65536", "a,a", "-a", "[x]:1"],
)
def test_an_invalid_relay_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"relay|port"):
        hosts.read(text)


def test_a_relay_that_refused_us_comes_last_until_its_pause_is_over() -> None:
    clock = Clock()
    relays = Relays([FIRST, SECOND, THIRD], pause_s=1, clock=clock)
    assert relays.in_order() == [FIRST, SECOND, THIRD]
    relays.set_aside(FIRST, "away")
    assert relays.in_order() == [SECOND, THIRD, FIRST]
    clock.now += 1.1
    # One caller tries it, the next one passes it over.
    assert relays.in_order() == [FIRST, SECOND, THIRD]
    assert relays.in_order() == [SECOND, THIRD, FIRST]
    relays.note_open(FIRST)
    assert relays.in_order() == [FIRST, SECOND, THIRD]


def test_a_relay_is_passed_over_longer_each_time_and_not_for_ever() -> None:
    clock = Clock()
    relays = Relays([FIRST, SECOND], pause_s=1, clock=clock)
    waits = []
    for _ in range(8):
        relays.set_aside(FIRST, "away")
        # At the same time by another connection: it counts once.
        relays.set_aside(FIRST, "away")
        began = clock.now
        while relays.in_order()[0] != FIRST:
            clock.now += 0.5
        waits.append(clock.now - began)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_all_relays_are_away_when_each_has_turned_us_away() -> None:
    relays = Relays([FIRST, SECOND], pause_s=1, clock=Clock())
    seen = []
    for relay in (FIRST, SECOND):
        relays.set_aside(relay, "limited", least_s=60)
        seen.append(relays.are_all_away)
    assert relays.in_order() == [FIRST, SECOND]
    relays.note_open(SECOND)
    seen.append(relays.are_all_away)
    assert seen == [False, True, False]
