"""The books: what was accepted, how each of it ended, and how often it arrived at its destination."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["mail", "task", "batch"]

# An end that was promised: the work was done.
DONE = frozenset({"delivered", "completed"})
# An end that was announced: the work was given up, and its owner is told so. What is parked goes on when
# somebody replays it; by itself it stays there.
GIVEN_UP = frozenset({"failed", "suppressed", "cancelled", "expired", "partially_delivered", "parked"})
ENDS = DONE | GIVEN_UP


@dataclass
class LedgerEntry:
    """One piece of work.

    `copies` counts each of its `effects` that arrived; `doubts` are tries whose outcome nobody knows (the
    relay hung up after the dot): each explains one copy more.
    """

    key: str
    kind: Kind
    effects: int = 1
    ids: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    copies: Counter[str] = field(default_factory=Counter)
    doubts: int = 0

    @property
    def is_accepted(self) -> bool:
        """Return whether a caller was promised the work."""
        return bool(self.ids)

    @property
    def is_lost(self) -> bool:
        """Return whether promised work has not ended, or is reported as done and had no effect."""
        missing = self.effects - len(self.copies)
        return self.is_accepted and (not self.ends or (self.ends[-1] in DONE and missing > 0))

    @property
    def duplicates(self) -> int:
        """Return how many effects arrived more than once, counted with each further copy."""
        return self.copies.total() - len(self.copies)

    def complaints(self) -> list[str]:
        """Return the errors in the ledger; an empty list when every promise was kept."""
        found = []
        if len(set(self.ids)) > 1:
            found.append(f"accepted under {len(set(self.ids))} ids")
        if self.is_accepted and not self.ends:
            found.append("came to no end")
        if len(set(self.ends)) > 1:
            found.append(f"ended more than once: {', '.join(self.ends)}")
        if self.ends and self.ends[-1] in DONE and len(self.copies) < self.effects:
            found.append(f"is {self.ends[-1]}, but {len(self.copies)} of {self.effects} effects arrived")
        if len(self.copies) > self.effects:
            found.append(f"{len(self.copies)} different effects instead of {self.effects}")
        if self.duplicates > self.doubts:
            found.append(f"{self.duplicates} duplicate effects, {self.doubts} of them explained")
        if self.copies and not self.is_accepted:
            found.append("happened without a promise")
        return [f"{self.kind} {self.key} {self.ids[:1]}: {what}" for what in found]


@dataclass(frozen=True)
class Balance:
    """The sum of the books."""

    planned: int
    accepted: int
    done: int
    given_up: int
    lost: int
    duplicates: int
    explained: int
    complaints: tuple[str, ...]


class Ledger:
    """One entry for each piece of work, known by a key that is found again at the far end."""

    def __init__(self) -> None:
        self.entries: dict[str, LedgerEntry] = {}
        self._by_id: dict[str, LedgerEntry] = {}

    def plan(self, key: str, kind: Kind, *, effects: int = 1) -> None:
        """Open an entry."""
        if key in self.entries:
            raise ValueError(f"{key} is planned twice")
        self.entries[key] = LedgerEntry(key, kind, effects)

    def accept(self, key: str, id_: str) -> None:
        """Note that work was promised under `id_`; the same id again is the same promise."""
        entry = self.entries[key]
        if id_ not in entry.ids:
            entry.ids.append(id_)
        self._by_id[id_] = entry

    def end(self, id_: str, state: str, *, doubts: int = 0) -> None:
        """Note how the work of `id_` ended; saying the same again changes nothing."""
        if state not in ENDS:
            raise ValueError(f"{state!r} is no end")
        entry = self._by_id[id_]
        entry.doubts = doubts
        if not entry.ends or entry.ends[-1] != state:
            entry.ends.append(state)

    def look_again(self, id_: str, state: str) -> None:
        """Note the state that was found after the end: it must be that end."""
        entry = self._by_id[id_]
        if entry.ends and entry.ends[-1] != state:
            entry.ends.append(state)

    def ended_ids(self) -> list[str]:
        """Return the ids that were promised and have ended."""
        return [entry.ids[-1] for entry in self.entries.values() if entry.is_accepted and entry.ends]

    def arrive(self, key: str, effects: Iterable[str]) -> None:
        """Note what has arrived for `key`, in all: each effect's own name, as often as it came."""
        self.entries[key].copies = Counter(effects)

    def open_ids(self) -> list[str]:
        """Return the ids that were promised and have not ended."""
        return [entry.ids[-1] for entry in self.entries.values() if entry.is_accepted and not entry.ends]

    def entry_of(self, id_: str) -> LedgerEntry:
        """Return the entry of an accepted id."""
        return self._by_id[id_]

    def balance(self) -> Balance:
        """Sum up."""
        accepted = [entry for entry in self.entries.values() if entry.is_accepted]
        ends = [entry.ends[-1] for entry in accepted if entry.ends]
        return Balance(
            planned=len(self.entries),
            accepted=len(accepted),
            done=sum(end in DONE for end in ends),
            given_up=sum(end in GIVEN_UP for end in ends),
            lost=sum(entry.is_lost for entry in accepted),
            duplicates=sum(entry.duplicates for entry in accepted),
            explained=sum(min(entry.duplicates, entry.doubts) for entry in accepted),
            complaints=tuple(line for entry in self.entries.values() for line in entry.complaints()),
        )
