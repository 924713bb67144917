"""Domains are labels of metrics in a bounded number, the busy ones by name."""

from __future__ import annotations

from emailer.bounces.domains import MOST_COUNTED, MOST_LABELS, OTHER, DomainLabels


def test_a_busy_domain_gets_a_label_as_long_as_there_are_some_left() -> None:
    labels = DomainLabels()
    assert [labels.label("example.com") for _ in range(20)] == [OTHER] * 19 + ["example.com"]
    for number in range(2 * MOST_LABELS):
        for _ in range(20):
            labels.label(f"d{number}.example")
    found = {labels.label(f"d{number}.example") for number in range(2 * MOST_LABELS)}
    assert len(found) == MOST_LABELS
    assert labels.label("example.com") == "example.com"


def test_the_domains_that_are_counted_are_bounded() -> None:
    labels = DomainLabels()
    for _ in range(19):
        assert labels.label("example.com") == OTHER
    for number in range(MOST_COUNTED):
        labels.label(f"d{number}.example")
    # The twentieth time would have been the last that it needed: it is counted anew.
    assert labels.label("example.com") == OTHER
