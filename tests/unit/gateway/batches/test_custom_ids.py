"""The ids of uploads: each is known once, and all uploads together hold no more than the bound."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import Overloaded
from gateway.batches.custom_ids import CustomIds, IdBudget


@given(st.lists(st.text(max_size=3), max_size=300))
def test_an_id_is_new_once(found: list[str]) -> None:
    ids, known = CustomIds(IdBudget(), "ann"), set[str]()
    for one in found:
        assert ids.add(one) is (one not in known)
        known.add(one)


def test_a_hundred_thousand_ids_take_18_bytes_each_at_most() -> None:
    ids = CustomIds(IdBudget(), "ann")
    tracemalloc.start()
    try:
        assert all(ids.add(f"item-{number}") for number in range(100_000))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not any(ids.add(f"item-{number}") for number in range(100_000))
    assert taken < 100_000 * 18 + 256 * 200


def test_one_owner_leaves_room_to_others_and_gives_back_what_was_held() -> None:
    budget = IdBudget(total=3000, per_owner=2000)
    with budget.upload("ann") as first, budget.upload("ann") as second, budget.upload("bob") as other:
        for number in range(1000):
            first.add(str(number))
            second.add(str(number))
            other.add(str(number))
        for full in (second, other):
            with pytest.raises(Overloaded):
                full.add("one more")
    assert not budget.held
    with budget.upload("ann") as again:
        assert again.add("one more")


def test_an_upload_without_ids_holds_nothing() -> None:
    budget = IdBudget()
    with budget.upload("ann"):
        assert not budget.held
