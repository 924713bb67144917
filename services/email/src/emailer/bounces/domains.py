"""Destination domains as labels of metrics: the busy ones by name, in a bounded number."""

from __future__ import annotations

from collections import Counter

OTHER = "other"
MOST_LABELS = 50
MOST_COUNTED = 10_000
# A rate of fewer mails says nothing.
_BUSY = 20


class DomainLabels:
    """Gives a domain a label of its own once it was seen twenty times, as long as there are labels left."""

    def __init__(self) -> None:
        self._labels: set[str] = set()
        self._seen: Counter[str] = Counter()

    def label(self, domain: str) -> str:
        """Return the label of `domain`, which was seen once more."""
        if domain in self._labels:
            return domain
        if len(self._labels) >= MOST_LABELS:
            return OTHER
        if len(self._seen) >= MOST_COUNTED:
            self._seen.clear()
        self._seen[domain] += 1
        if self._seen[domain] < _BUSY:
            return OTHER
        self._labels.add(domain)
        del self._seen[domain]
        return domain


# One for deliveries and bounces: a rate needs both under one name.
LABELS = DomainLabels()
