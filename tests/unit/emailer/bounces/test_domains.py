"""Domains are labels of metrics in a bounded number, the busy ones by name, and owners share the labels."""

from __future__ import annotations

from emailer.bounces.domains import MOST_COUNTED, MOST_LABELS, MOST_OWNERS, OTHER, DomainLabels


def make_busy(labels: DomainLabels, domain: str, *, owner_id: str) -> str:
    """Return the label of a domain after twenty mails of the owner."""
    return [labels.label(domain, owner_id=owner_id) for _ in range(20)][-1]


def test_a_busy_domain_gets_a_label_that_all_owners_use() -> None:
    labels = DomainLabels()
    found = [labels.label("example.com", owner_id="a") for _ in range(20)]
    assert found == [OTHER] * 19 + ["example.com"]
    assert labels.label("example.com", owner_id="b") == "example.com"


def test_an_owner_with_thousands_of_domains_leaves_labels_for_others() -> None:
    labels = DomainLabels()
    found = {make_busy(labels, f"d{number}.example", owner_id="many") for number in range(2_000)}
    assert MOST_LABELS // 3 < len(found - {OTHER}) < MOST_LABELS // 2
    assert make_busy(labels, "example.com", owner_id="few") == "example.com"
    assert labels.label("d0.example", owner_id="many") == "d0.example"


def test_the_labels_of_all_owners_together_are_bounded() -> None:
    labels = DomainLabels()
    owners = [f"o{number}" for number in range(2 * MOST_LABELS)]
    found = {make_busy(labels, f"{owner}.example", owner_id=owner) for owner in owners}
    assert len(found - {OTHER}) == MOST_LABELS


def test_an_owner_with_ever_new_domains_delays_no_label_of_another() -> None:
    labels = DomainLabels()
    for turn in range(19):
        assert labels.label("example.com", owner_id="few") == OTHER
        for number in range(1_000):
            labels.label(f"d{turn}-{number}.example", owner_id="many")
    assert labels.label("example.com", owner_id="few") == "example.com"


def test_a_domain_that_is_busy_among_very_many_of_its_owner_gets_a_label() -> None:
    labels = DomainLabels()
    for number in range(4 * MOST_COUNTED):
        label = labels.label("example.com", owner_id="a")
        for other in range(5):
            labels.label(f"d{number}-{other}.example", owner_id="a")
    assert label == "example.com"


def test_the_owners_whose_domains_are_counted_are_bounded() -> None:
    labels = DomainLabels()
    for _ in range(19):
        assert labels.label("example.com", owner_id="early") == OTHER
    for number in range(MOST_OWNERS):
        labels.label("example.org", owner_id=f"o{number}")
    # The twentieth time would have been the last that it needed: it is counted anew.
    assert labels.label("example.com", owner_id="early") == OTHER
