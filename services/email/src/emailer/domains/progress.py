"""The state of a domain after a check of its records: its status, the active keys, and the next check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from contracts.domains import KeyAlgorithm
from emailer.domains import records, stored
from emailer.domains.records import DnsAnswer, Expected
from emailer.domains.stored import Finding, StoredDomain, StoredKey

# Mails signed with a replaced key may still be in transit, or be verified again, for this long.
OVERLAP = timedelta(days=7)
_ALGORITHMS: tuple[KeyAlgorithm, ...] = ("rsa", "ed25519")
_SOONEST = timedelta(minutes=1)
_WORRIED = timedelta(minutes=30)
# A domain that has lacked its records for this long is not checked any more.
_GIVEN_UP = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class CheckSchedule:
    """The interval between checks of a verified domain, and how long its ownership record may be missing."""

    every: timedelta = timedelta(hours=6)
    grace: timedelta = timedelta(hours=72)


def after_check(
    domain: StoredDomain,
    expected: Sequence[Expected],
    answers: Mapping[str, DnsAnswer],
    *,
    now: datetime,
    schedule: CheckSchedule,
) -> StoredDomain:
    """Return `domain` as it is after a check of its records.

    If DNS does not answer, the domain keeps its state; a missing ownership record counts after the grace.
    """
    findings = {record.key: _finding(domain, record, answers.get(record.key), now) for record in expected}
    ownership = next(findings[record.key] for record in expected if record.is_required)
    status, missing_since = domain.status, domain.missing_since
    if ownership.state == "found":
        status, missing_since = "verified", None
    elif status == "verified" and ownership.state in ("missing", "different"):
        missing_since = missing_since or now
        status = "lost" if now - missing_since >= schedule.grace else "verified"
    changed = replace(
        domain,
        status=status,
        version=domain.version + 1,
        verified_at=now if status == "verified" != domain.status else domain.verified_at,
        checked_at=now,
        missing_since=missing_since,
        findings=findings,
        keys=_keys(domain, findings, now),
    )
    return replace(changed, check_at=_next_check(changed, now, schedule))


def lost_records(domain: StoredDomain) -> int:
    """Return how many records of a verified domain were correct once and no longer are."""
    return sum(finding.is_lost for finding in domain.findings.values()) if domain.status == "verified" else 0


def _finding(domain: StoredDomain, record: Expected, answer: DnsAnswer | None, now: datetime) -> Finding:
    before = domain.findings.get(record.key, Finding("unchecked"))
    if answer is None:
        return before
    state = records.judge(record, answer)
    values = stored.shown(records.relevant(record, answer.values))
    last_found_at = now if state == "found" else before.last_found_at
    return Finding(state, values, last_found_at, answer.inherited_from)


def _keys(domain: StoredDomain, findings: Mapping[str, Finding], now: datetime) -> tuple[StoredKey, ...]:
    """Return the keys: for each algorithm the newest with a record found signs, and older ones retire."""
    found = {
        name.partition(".")[0]
        for purpose, _, name in (key.partition(" ") for key, one in findings.items() if one.state == "found")
        if purpose == "dkim"
    }
    newest_first = sorted(domain.keys, key=lambda key: (key.created_at, key.selector), reverse=True)
    return tuple(
        key
        for algorithm in _ALGORITHMS
        for key in _in_turn((key for key in newest_first if key.algorithm == algorithm), found, now)
    )


def _in_turn(newest_first: Iterable[StoredKey], found: Set[str], now: datetime) -> Iterator[StoredKey]:
    is_replaced = False
    for key in newest_first:
        if key.state == "retiring":
            if key.retire_at is None or key.retire_at > now:
                yield key
        elif not is_replaced:
            is_confirmed = key.state == "pending" and key.selector in found
            # The record of an active key may be missing briefly: the key goes on signing.
            is_replaced = key.state == "active" or is_confirmed
            yield replace(key, state="active", active_at=now) if is_confirmed else key
        elif key.state == "active":
            yield replace(key, state="retiring", retire_at=now + OVERLAP)


def _next_check(domain: StoredDomain, now: datetime, schedule: CheckSchedule) -> datetime | None:
    if domain.status == "verified":
        is_waited_for = lost_records(domain) or any(key.state == "pending" for key in domain.keys)
        return now + (min(_WORRIED, schedule.every) if is_waited_for else schedule.every)
    since = domain.missing_since or domain.created_at
    if now - since > _GIVEN_UP + schedule.grace:
        return None
    # Often at first, while the owner is setting up the records, then more and more rarely.
    return now + min(schedule.every, max(_SOONEST, (now - since) / 4))
