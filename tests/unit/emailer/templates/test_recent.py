"""Recent events are remembered by key, for a while, and in a bounded number."""

from __future__ import annotations

from emailer.templates.recent import RecentCounts


def test_a_key_is_forgotten_when_its_last_event_is_long_ago() -> None:
    now = 0.0
    counts = RecentCounts(most=10, age_s=60, clock=lambda: now)
    assert [counts.note(b"a"), counts.note(b"b")] == [1, 1]
    now = 50.0
    assert counts.note(b"a") == 2
    now = 61.0
    assert (counts.count(b"a"), counts.count(b"b"), len(counts)) == (2, 0, 1)
    now = 110.0
    assert (counts.note(b"a"), len(counts)) == (1, 1)


def test_the_oldest_is_forgotten_when_there_are_too_many() -> None:
    counts = RecentCounts(most=2, age_s=60, clock=lambda: 0)
    for key in (b"a", b"b", b"a", b"c"):
        counts.note(key)
    assert [counts.count(key) for key in (b"a", b"b", b"c")] == [2, 0, 1]


def test_a_count_begins_anew_when_it_is_forgotten() -> None:
    counts = RecentCounts(most=2, age_s=60)
    counts.note(b"a")
    counts.forget(b"a")
    counts.forget(b"a")
    assert counts.note(b"a") == 1
