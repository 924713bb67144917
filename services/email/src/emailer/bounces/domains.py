"""Destination domains as metric labels: only busy domains get their own, and owners share their number."""

from __future__ import annotations

from collections import Counter, OrderedDict

from chassis import shares

OTHER = "other"
MOST_LABELS = 100
# Domains that are counted of an owner, and owners of which any are.
MOST_COUNTED = 200
MOST_OWNERS = 500
# A rate of fewer mails means nothing.
_BUSY = 20


class DomainLabels:
    """Gives a domain a label of its own once one owner's mails went there twenty times.

    An owner takes a label only while enough are left for other owners (`shares.has_room`), however many
    domains it writes to; all use those that there are. The counts of an owner depend on its mails alone.
    """

    def __init__(self) -> None:
        # Each domain that has a label, and the number of labels that each owner has taken.
        self._labels: set[str] = set()
        self._taken: Counter[str] = Counter()
        # By owner, the one whose last mail was the longest ago first.
        self._seen: OrderedDict[str, Counter[str]] = OrderedDict()

    def label(self, domain: str, *, owner_id: str) -> str:
        """Count another mail of the owner to `domain`, and return the domain's label."""
        if domain in self._labels:
            return domain
        if not shares.has_room(self._taken[owner_id], held=len(self._labels), most=MOST_LABELS):
            return OTHER
        seen = self._seen.setdefault(owner_id, Counter())
        self._seen.move_to_end(owner_id)
        if len(self._seen) > MOST_OWNERS:
            self._seen.popitem(last=False)
        if domain not in seen and len(seen) >= MOST_COUNTED:
            # Each domain loses one, and so does this one: those that are busy keep most of their count.
            seen.subtract(dict.fromkeys(seen, 1))
            self._seen[owner_id] = +seen
            return OTHER
        seen[domain] += 1
        if seen[domain] < _BUSY:
            return OTHER
        self._labels.add(domain)
        self._taken[owner_id] += 1
        del seen[domain]
        return domain


# Shared by deliveries and bounces: a bounce rate needs both under the same label.
LABELS = DomainLabels()
