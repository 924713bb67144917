"""Of each room in hand an owner gets no more than it leaves free, so that others always find some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import cast
from uuid import uuid4

import pytest

from chassis.postgres import Row
from contracts.mail import Stream
from emailer.sending.lanes import MailLane
from emailer.sending.shares import Held, RoomShares, places
from emailer.writing.rendered import COPIES

SIZE = 400
MOST_BYTES = 32 << 20


def shares(held: Iterable[MailLane] = (), *, held_bytes: dict[str, int] | None = None) -> RoomShares:
    counts: Held = Counter()
    for lane in held:
        counts.update(places(lane))
    return RoomShares(SIZE, held=counts, most_bytes=MOST_BYTES, held_bytes=Counter(held_bytes or {}))


def lanes(owner_id: str, domains: int, *, stream: Stream = "transactional") -> list[MailLane]:
    return [MailLane(stream, owner_id, f"{number}.example") for number in range(domains)]


def divide(found: RoomShares, *wanted: MailLane, most: int = 100, quick: str = "none") -> Counter[str]:
    """Return how many recipients each owner gets where a domain may have `most`, and some are quick."""
    given: Counter[str] = Counter()
    parts = found.divide(wanted, most_of_domain=lambda _: most, is_quick=lambda domain: quick in domain)
    for lane, count in parts.items():
        given[lane.owner_id] += count
    return given


def claimed(lane: MailLane, *, size_bytes: int = 0) -> Row:
    row = {"stream": lane.stream, "owner_id": lane.owner_id, "domain": lane.domain}
    return cast(Row, row | {"email_id": uuid4(), "size_bytes": size_bytes})


def test_owners_get_the_same_however_many_domains_they_send_to() -> None:
    assert divide(shares(), *lanes("alone", 10)) == {"alone": 175}
    assert divide(shares(), *lanes("big", 10), *lanes("small", 2), most=SIZE) == {"big": 116, "small": 116}


def test_an_owner_has_all_but_the_reserve_for_domains_that_answer_quickly() -> None:
    assert divide(shares(), *lanes("alone", 10), quick="") == {"alone": 350}
    assert divide(shares(), *lanes("alone", 10, stream="bulk"), quick="") == {"alone": 175}
    assert divide(shares(lanes("alone", 10) * 35), MailLane("bulk", "new", "new.example"), quick="") == {
        "new": 1
    }
    assert divide(shares(), *lanes("a", 10), *lanes("b", 10), quick="") == {"a": 175, "b": 175}


def test_a_domain_is_shared_by_the_owners_that_send_to_it() -> None:
    assert divide(shares(), *lanes("alone", 1)) == {"alone": 44}
    assert divide(shares(), *lanes("a", 1), *lanes("b", 1), *lanes("c", 1)) == {"a": 22, "b": 22, "c": 22}


@pytest.mark.parametrize("stream", ["transactional", "bulk"])
def test_a_new_owner_finds_room_beside_many_owners_whose_mails_do_not_end(stream: Stream) -> None:
    stuck: list[MailLane] = []
    for number in range(20):
        for _ in range(10):
            given = shares(stuck).divide(
                lanes(f"stuck-{number}", 10, stream=stream),
                most_of_domain=lambda _: 100,
                is_quick=lambda _: False,
            )
            stuck += [lane for lane, count in given.items() for _ in range(count)]
    assert {lane.owner_id for lane in stuck} == {f"stuck-{number}" for number in range(20)}
    assert divide(shares(stuck), MailLane(stream, "new", "other.example"))["new"] > 0


def test_mails_that_one_claim_has_taken_of_a_stream_count_for_the_next_stream() -> None:
    found = shares()
    found.note([claimed(lane) for lane in lanes("press", 10) for _ in range(20)])
    assert divide(found, *lanes("press", 10, stream="bulk")) == {}
    assert found.room("bulk") == SIZE // 2


def test_the_domain_with_the_fewest_mails_in_hand_comes_first() -> None:
    busy, idle = lanes("press", 2)
    found = shares([busy] * 60)
    given = found.divide([busy, idle], most_of_domain=lambda _: 400, is_quick=lambda _: False)
    assert given[idle] > given[busy] > 0


def test_an_owner_takes_no_more_by_many_small_claims() -> None:
    assert divide(shares(lanes("press", 10) * 13), *lanes("press", 10)) == {}
    assert divide(shares(lanes("press", 10) * 10), *lanes("press", 10))["press"] == 75


def test_bytes_are_shared_by_the_bytes_in_hand_and_each_mail_counts_once() -> None:
    found = shares(held_bytes={"press": 6 << 20})
    assert found.bytes_for(["press"]) == ((26 << 20) // COPIES, {"press": (8 << 20) // COPIES})
    row = claimed(lanes("press", 1)[0], size_bytes=4 << 20)
    found.note([row, row])
    assert found.bytes_for(["shop"])[1] == {"shop": (7 << 20) // COPIES}


def test_an_owner_without_bytes_left_gets_nothing_and_others_go_on() -> None:
    found = shares(held_bytes={"press": MOST_BYTES // 2})
    assert divide(found, *lanes("press", 10), *lanes("shop", 1)).keys() == {"shop"}


def test_a_mail_that_is_larger_than_its_share_can_be_taken_by_an_owner_that_has_none() -> None:
    found = shares(held_bytes={"press": MOST_BYTES - 1})
    assert divide(found, *lanes("shop", 1))["shop"] > 0
    assert found.bytes_for(["shop"]) == (1, {"shop": 1})
