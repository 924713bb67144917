"""Destination domains as metric labels: only busy domains get their own, and their number is bounded."""

from __future__ import annotations

from collections import Counter

OTHER = "other"
MOST_LABELS = 50
MOST_COUNTED = 10_000
# A rate of fewer mails means nothing.
_BUSY = 20


class DomainLabels:
    """Gives a domain a label of its own once it was seen twenty times, until all labels are used."""

    def __init__(self) -> None:
        self._labels: set[str] = set()
        self._seen: Counter[str] = Counter()

    def label(self, domain: str) -> str:
        """Count another mail of `domain`, and return the domain's label."""
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


# Shared by deliveries and bounces: a bounce rate needs both under the same label.
LABELS = DomainLabels()
