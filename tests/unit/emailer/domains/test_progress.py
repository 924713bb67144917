"""The status of a domain after a check of its records: verified, lost, and which keys sign."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from emailer.domains import progress, records
from emailer.domains.progress import OVERLAP, CheckSchedule
from emailer.domains.records import DnsAnswer, RecordSettings
from emailer.domains.stored import StoredDomain, StoredKey

AT = datetime(2026, 11, 27, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SCHEDULE = CheckSchedule()
NOTHING = RecordSettings()


def key(selector: str, state: Any, *, made: datetime = AT, algorithm: Any = "rsa") -> StoredKey:
    return StoredKey(selector, algorithm, state, f"v=DKIM1; k={algorithm}; p={selector}", made)


def domain(*keys: StoredKey, **fields: Any) -> StoredDomain:
    usual: dict[str, Any] = {
        "id": UUID(int=1),
        "owner_id": "1",
        "name": "acme.example",
        "token": "t",
        "return_path_host": "bounces.acme.example",
        "status": "pending",
        "version": 1,
        "created_at": AT,
    }
    return StoredDomain(**usual | fields, keys=keys)


def checked(
    before: StoredDomain, *missing: str, at: datetime = AT, silent: tuple[str, ...] = ()
) -> StoredDomain:
    """Return the domain after a check that found all records but those named `missing…`."""
    asked = records.expected(before, NOTHING)
    answers = {
        record.key: DnsAnswer(
            () if record.name.startswith(missing or ("-",)) else (record.value,),
            is_available=not record.name.startswith(silent or ("-",)),
        )
        for record in asked
    }
    return progress.after_check(before, asked, answers, now=at, schedule=SCHEDULE)


def states(found: StoredDomain) -> dict[str, str]:
    return {each.selector: each.state for each in found.keys}


def test_a_domain_is_verified_by_the_proof_of_its_ownership_alone() -> None:
    found = checked(domain(key("a", "pending")), "a.", "_dmarc")
    assert (found.status, found.verified_at, found.version) == ("verified", AT, 2)
    assert states(found) == {"a": "pending"}
    assert checked(domain(), "_tickwire").status == "pending"


def test_a_verified_domain_is_lost_only_after_the_grace() -> None:
    verified = checked(domain())
    missed = checked(verified, "_tickwire", at=AT + HOUR)
    assert (missed.status, missed.missing_since) == ("verified", AT + HOUR)
    late = AT + HOUR + SCHEDULE.grace
    still = checked(missed, "_tickwire", at=late - HOUR)
    assert still.status == "verified"
    lost = checked(still, "_tickwire", at=late)
    assert lost.status == "lost"
    # Whoever sets it again is back at once.
    assert checked(lost, at=late + HOUR).status == "verified"
    assert checked(missed, at=late).missing_since is None


def test_a_failed_lookup_takes_nothing_away() -> None:
    verified = checked(domain(key("a", "pending")))
    for number in range(1, 200):
        verified = checked(verified, at=AT + number * HOUR, silent=("_tickwire", "a.", "_dmarc"))
    assert verified.status == "verified"
    assert verified.missing_since is None
    assert progress.lost_records(verified) == 0


def test_records_that_were_there_once_and_are_gone_are_counted() -> None:
    never = checked(domain(key("a", "pending")), "_dmarc")
    assert progress.lost_records(never) == 0
    gone = checked(never, "_dmarc", "a.", at=AT + HOUR)
    assert progress.lost_records(gone) == 1
    assert progress.lost_records(replace(gone, status="lost")) == 0


def test_a_key_signs_once_its_record_is_found_and_the_one_before_it_retires() -> None:
    before = domain(
        key("old", "active"),
        key("new", "pending", made=AT + HOUR),
        key("e", "active", algorithm="ed25519"),
    )
    waiting = checked(before, "new.", at=AT + HOUR)
    assert states(waiting) == {"old": "active", "new": "pending", "e": "active"}
    turned = checked(waiting, at=AT + 2 * HOUR)
    assert states(turned) == {"old": "retiring", "new": "active", "e": "active"}
    assert {k.selector: k.retire_at for k in turned.keys if k.retire_at} == {"old": AT + 2 * HOUR + OVERLAP}
    assert states(checked(turned, at=AT + 2 * HOUR + OVERLAP)) == {"new": "active", "e": "active"}


def test_a_key_goes_on_signing_while_its_record_is_gone() -> None:
    assert states(checked(domain(key("a", "active")), "a.")) == {"a": "active"}


def test_checks_become_rarer_and_end_where_nobody_sets_the_records() -> None:
    waits = []
    pending, at = domain(), AT
    for _ in range(200):
        pending = checked(pending, "_tickwire", at=at)
        if pending.check_at is None:
            break
        waits.append(pending.check_at - at)
        at = pending.check_at
    assert waits[0] == timedelta(minutes=1)
    assert waits == sorted(waits)
    assert max(waits) <= SCHEDULE.every
    assert pending.check_at is None
    assert at - AT < timedelta(days=18)


def test_a_verified_domain_that_loses_a_record_is_checked_more_often() -> None:
    verified = checked(domain(key("a", "pending")))
    assert verified.check_at == AT + SCHEDULE.every
    assert checked(verified, "a.").check_at == AT + timedelta(minutes=30)


def test_only_a_few_found_values_are_kept() -> None:
    expected = records.expected(domain(), NOTHING)
    values = tuple(f"v=DMARC1; p=none; n={number} " + "ü" * 2_000 for number in range(10))
    answers = {record.key: DnsAnswer(values) for record in expected}
    found = progress.after_check(domain(), expected, answers, now=AT, schedule=SCHEDULE)
    (dmarc,) = [finding for name, finding in found.findings.items() if name.startswith("dmarc")]
    assert len(dmarc.values) == 3
    assert all(500 < len(value.encode()) <= 512 for value in dmarc.values)
