"""Owners share the room of a cache: however much one of them stores, what others have stored stays."""

from __future__ import annotations

from chassis.owner_cache import OwnerCache


def test_an_owner_that_stores_very_much_loses_its_own_oldest_values_and_nobody_elses() -> None:
    cache = OwnerCache[str, int](most=10, of_owner=3)
    cache.store("ann", "a", 1)
    for number in range(100):
        cache.store("bob", f"b{number}", number)
    assert cache.get("ann", "a") == 1
    assert [cache.get("bob", f"b{number}") for number in range(96, 100)] == [None, 97, 98, 99]
    assert len(cache) == 4


def test_of_very_many_owners_the_value_that_was_stored_the_longest_ago_is_forgotten() -> None:
    cache = OwnerCache[str, int](most=3, of_owner=3)
    for owner in ("ann", "bob", "cid", "ann", "dan"):
        cache.store(owner, "a", 1)
    assert [cache.get(owner, "a") for owner in ("ann", "bob", "cid", "dan")] == [1, None, 1, 1]
    assert cache.oldest == ("cid", "a", 1)


def test_a_value_that_is_forgotten_leaves_its_place_to_another_one() -> None:
    cache = OwnerCache[str, int](most=2, of_owner=1)
    cache.store("ann", "a", 1)
    cache.forget("ann", "a")
    cache.forget("ann", "a")
    assert (cache.get("ann", "a"), cache.oldest, len(cache)) == (None, None, 0)
    cache.store("ann", "b", 2)
    cache.store("ann", "b", 3)
    assert (cache.get("ann", "b"), len(cache)) == (3, 1)
