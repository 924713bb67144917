"""The lanes that a process knows are bounded, and no owner's lanes keep another owner from its turn."""

from __future__ import annotations

from datetime import UTC, datetime

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
