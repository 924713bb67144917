"""The lanes that a process knows are bounded, and no owner's lanes keep another owner from its turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sized
from datetime import UTC, datetime

import pytest

from emailer.sending import rounds
from emailer.sending.lanes import MailLane
from emailer.sending.rounds import MOST_KNOWN, MOST_OF_OWNER, Round

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def test_an_owner_gets_its_turn_though_the_lanes_of_others_are_as_many_as_can_be_known() -> None:
    turn = Round("transactional")
    for number in range(MOST_KNOWN):
        turn.learn(f"a{number // MOST_OF_OWNER}", f"{number}.example", NOW)
    for domain in ("one.example", "two.example"):
        turn.learn("b", domain, NOW)
    assert len(turn) == MOST_KNOWN
    found = turn.next()
    assert {MailLane("transactional", "b", "one.example"), MailLane("transactional", "b", "two.example")} < {
        *found
    }
    # As many owners as lanes: nobody has more than another one.
    crowd = Round("bulk")
    for number in range(MOST_KNOWN + 1):
        crowd.learn(f"o{number}", "one.example", NOW)
    assert len(crowd) == MOST_KNOWN


@pytest.mark.parametrize("lanes_of_owner", [1, 2, 100])
def test_to_learn_a_lane_more_than_can_be_known_looks_at_few_owners(
    monkeypatch: pytest.MonkeyPatch, lanes_of_owner: int
) -> None:
    looks = 0

    def counting(sized: Sized) -> int:
        nonlocal looks
        looks += 1
        return len(sized)

    turn = Round("transactional")
    for number in range(MOST_KNOWN):
        turn.learn(f"a{number // lanes_of_owner}", f"{number}.example", NOW)
    monkeypatch.setattr(rounds, "len", counting, raising=False)
    for number in range(500):
        turn.learn(f"b{number}", "one.example", NOW)
    assert looks < 10 * 500
    assert len(turn) == MOST_KNOWN
    assert ("b499" in {lane.owner_id for lane in turn.lanes(MOST_KNOWN)}) == (lanes_of_owner > 1)


def test_the_owner_with_the_most_lanes_gives_one_up_until_all_have_as_many() -> None:
    turn = Round("bulk")
    for number in range(3 * MOST_KNOWN):
        # One owner of a thousand has twenty times as many as the others.
        owner = 7 if number % 50 == 0 else number % 1000
        turn.learn(f"o{owner}", f"{number}.example", NOW)
    sizes = Counter(lane.owner_id for lane in turn.lanes(MOST_KNOWN))
    assert len(turn) == sizes.total() == MOST_KNOWN
    assert max(sizes.values()) - min(sizes.values()) <= 2
