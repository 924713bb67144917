"""The rule by which owners share places: nobody takes what the next owner needs."""

from __future__ import annotations

from collections import Counter

import pytest

from chassis.shares import has_room, has_room_for, parts_of


def greedy(owners: int, *, most: int, few: int = 1, weight: int = 1) -> list[int]:
    """Return the places of owners that come one after the other, and take all that each of them gets."""
    taken: Counter[int] = Counter()
    for owner in range(owners):
        while has_room(taken[owner], held=taken.total(), most=most, few=few, weight=weight):
            taken[owner] += 1
    return [taken[owner] for owner in range(owners)]


def settled(owners: int, *, most: int, few: int = 1, weight: int = 1) -> list[int]:
    """Return the places of such owners after work has ended, and places were taken again in turns."""
    taken: Counter[int] = Counter()
    for _ in range(most):
        for owner in range(owners):
            taken[owner] += has_room(taken[owner], held=taken.total(), most=most, few=few, weight=weight)
    return [taken[owner] for owner in range(owners)]


def test_an_owner_alone_has_about_half_and_with_a_weight_more() -> None:
    assert greedy(1, most=10) == [5]
    assert greedy(1, most=512, few=4, weight=3) == [336]


@pytest.mark.parametrize(("most", "few", "weight"), [(10, 1, 1), (24, 1, 1), (512, 4, 3)])
def test_four_owners_that_take_all_they_get_leave_a_place_for_a_fifth(
    most: int, few: int, weight: int
) -> None:
    for taken in (
        greedy(4, most=most, few=few, weight=weight),
        settled(4, most=most, few=few, weight=weight),
    ):
        assert min(taken) >= 1
        assert has_room(0, held=sum(taken), most=most, few=few, weight=weight)


def test_owners_that_take_turns_end_up_with_equal_shares() -> None:
    for most, few, weight in ((24, 1, 1), (512, 4, 3)):
        for owners in (2, 4, 8):
            taken = settled(owners, most=most, few=few, weight=weight)
            assert max(taken) - min(taken) <= 1


def test_nothing_is_had_beyond_the_last_place() -> None:
    assert sum(greedy(30, most=24)) == 24
    assert not has_room(0, held=24, most=24)
    assert greedy(1, most=1) == [1]


def test_owners_that_take_all_bytes_they_get_leave_some_for_the_next_one() -> None:
    taken: Counter[str] = Counter()
    for owner in "abcde":
        while has_room_for(20, own=taken[owner], held=taken.total(), most=1_000):
            taken[owner] += 20
    assert taken == {"a": 420, "b": 220, "c": 100, "d": 60, "e": 20}
    assert has_room_for(180, own=0, held=820, most=1_000)
    assert not has_room_for(181, own=0, held=820, most=1_000)


def test_a_group_that_failed_is_tried_again_by_owner_and_that_of_one_owner_piece_by_piece() -> None:
    group = ["bad 1", "ann 1", "bad 2", "bob 1", "bad 3", "ann 2"]
    parts = parts_of(group, lambda one: one[:3])
    assert parts == [["bob 1"], ["ann 1", "ann 2"], ["bad 1", "bad 2", "bad 3"]]
    assert parts_of(parts[-1], lambda one: one[:3]) == [["bad 1"], ["bad 2"], ["bad 3"]]
