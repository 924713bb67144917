"""Recent events are remembered by owner and key, for a while, and in a bounded number."""

from __future__ import annotations

from functools import partial

from emailer.templates.recent import RecentCounts


def test_a_key_is_forgotten_when_its_last_event_is_long_ago() -> None:
    now = 0.0
    counts = RecentCounts(most=10, of_owner=10, age_s=60, clock=lambda: now)
    note, count = partial(counts.note, owner_id="ann"), partial(counts.count, owner_id="ann")
    assert [note(b"a"), note(b"b")] == [1, 1]
    now = 50.0
    assert note(b"a") == 2
    now = 61.0
    assert (count(b"a"), count(b"b"), len(counts)) == (2, 0, 1)
    now = 110.0
    assert (note(b"a"), len(counts)) == (1, 1)


def test_the_oldest_is_forgotten_when_there_are_too_many() -> None:
    counts = RecentCounts(most=2, of_owner=2, age_s=60, clock=lambda: 0)
    for key in (b"a", b"b", b"a", b"c"):
        counts.note(key, owner_id="ann")
    assert [counts.count(key, owner_id="ann") for key in (b"a", b"b", b"c")] == [2, 0, 1]


def test_however_many_keys_an_owner_has_those_of_others_are_remembered() -> None:
    counts = RecentCounts(most=10, of_owner=2, age_s=60, clock=lambda: 0)
    counts.note(b"a", owner_id="ann")
    for number in range(100):
        counts.note(b"%d" % number, owner_id="bob")
    assert counts.note(b"a", owner_id="ann") == 2


def test_a_count_begins_anew_when_it_is_forgotten() -> None:
    counts = RecentCounts(most=2, of_owner=2, age_s=60)
    counts.note(b"a", owner_id="ann")
    counts.forget(b"a", owner_id="ann")
    counts.forget(b"a", owner_id="ann")
    assert counts.note(b"a", owner_id="ann") == 1
