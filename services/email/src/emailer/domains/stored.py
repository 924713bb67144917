"""A domain as it is stored: the finding about each record, and its keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from uuid import UUID

from contracts.domains import DomainStatus, KeyAlgorithm, KeyState, RecordState

# Enough to see what is wrong; a DNS record can have any length, and a page shows hundreds.
MOST_SHOWN_VALUES = 3
MOST_SHOWN_OCTETS = 512


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of the last check of a record, and when the record was last correct.

    `inherited_from` is the parent name at which it was found, if any.
    """

    state: RecordState
    values: tuple[str, ...] = ()
    last_found_at: datetime | None = None
    inherited_from: str | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the record was correct once and no longer is."""
        return self.last_found_at is not None and self.state in ("missing", "different")


def shown(values: Iterable[str]) -> tuple[str, ...]:
    """Return the first three of `values`, each cut to 512 octets."""
    return tuple(
        value.encode()[:MOST_SHOWN_OCTETS].decode(errors="ignore")
        for value in islice(values, MOST_SHOWN_VALUES)
    )


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A DKIM key without its private part."""

    selector: str
    algorithm: KeyAlgorithm
    state: KeyState
    public_record: str
    created_at: datetime
    active_at: datetime | None = None
    retire_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredDomain:
    """A sender domain. `missing_since`: when the ownership record was first gone; `check_at`: next check."""

    id: UUID
    owner_id: str
    name: str
    token: str
    return_path_host: str
    status: DomainStatus
    version: int
    created_at: datetime
    verified_at: datetime | None = None
    checked_at: datetime | None = None
    missing_since: datetime | None = None
    check_at: datetime | None = None
    rotation_key: str | None = None
    findings: Mapping[str, Finding] = field(default_factory=dict)
    keys: tuple[StoredKey, ...] = ()
