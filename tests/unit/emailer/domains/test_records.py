"""The records that a domain should have in DNS, and which answers count as having them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from contracts.domains import RecordState
from emailer.domains import records
from emailer.domains.records import DnsAnswer, Expected, RecordSettings
from emailer.domains.stored import StoredDomain, StoredKey

AT = datetime(2026, 11, 27, tzinfo=UTC)
KEY = StoredKey("sel", "rsa", "active", "v=DKIM1; k=rsa; p=AAAA", AT)
DOMAIN = StoredDomain(
    id=UUID(int=1),
    owner_id="1",
    name="acme.example",
    token="t0k3n",
    return_path_host="bounces.acme.example",
    status="pending",
    version=1,
    created_at=AT,
    keys=(KEY, replace(KEY, selector="old", state="retiring")),
)
RELAY = RecordSettings(spf_mechanisms="include:spf.relay.example", return_path_target="bounces.relay.example")


def expected(purpose: str) -> Expected:
    return next(record for record in records.expected(DOMAIN, RELAY) if record.purpose == purpose)


def test_the_records_say_which_value_to_set_at_which_name() -> None:
    assert [(r.type, r.name, r.value) for r in records.expected(DOMAIN, RELAY)] == [
        ("TXT", "_tickwire.acme.example", "tickwire-domain-verification=t0k3n"),
        ("TXT", "sel._domainkey.acme.example", "v=DKIM1; k=rsa; p=AAAA"),
        ("TXT", "acme.example", "v=spf1 include:spf.relay.example ~all"),
        ("TXT", "_dmarc.acme.example", "v=DMARC1; p=none"),
        ("CNAME", "bounces.acme.example", "bounces.relay.example"),
    ]
    assert [r.purpose for r in records.expected(DOMAIN, RELAY) if r.is_required] == ["ownership"]


def test_records_that_the_operator_has_not_configured_are_not_asked_for() -> None:
    asked = {record.purpose for record in records.expected(DOMAIN, RecordSettings())}
    assert asked == {"ownership", "dkim", "dmarc"}


@pytest.mark.parametrize(
    ("purpose", "values", "state"),
    [
        ("ownership", ["tickwire-domain-verification=t0k3n"], "found"),
        # Another installation, or another owner, may have one, too.
        (
            "ownership",
            ["x", "tickwire-domain-verification=b", " tickwire-domain-verification=t0k3n "],
            "found",
        ),
        ("ownership", ["tickwire-domain-verification=b"], "different"),
        ("ownership", ["t0k3n"], "missing"),
        ("dkim", ["v=DKIM1;p=AA AA"], "found"),
        ("dkim", ["k=rsa; t=s; p=AAAA;"], "found"),
        ("dkim", ["v=DKIM1; k=ed25519; p=AAAA"], "different"),
        ("dkim", ["v=DKIM1; k=rsa; p="], "different"),
        ("dkim", ["v=DKIM1; k=rsa; p=AAAA", "v=DKIM1; k=rsa; p=AAAA"], "different"),
        ("spf", ["verification of others", "v=spf1 mx INCLUDE:spf.relay.example -all"], "found"),
        ("spf", ["v=spf1 mx -all"], "different"),
        ("spf", ["v=spf1 include:spf.relay.example -all", "v=spf1 mx -all"], "different"),
        ("spf", ["something else"], "missing"),
        ("dmarc", ["v=DMARC1; p=reject; rua=mailto:a@acme.example"], "found"),
        ("dmarc", ["v=DMARC1; sp=none"], "different"),
        ("dmarc", ["v=DMARC1; p=maybe"], "different"),
        ("return_path", ["Bounces.Relay.example."], "found"),
        ("return_path", ["elsewhere.example"], "different"),
        ("return_path", [], "missing"),
    ],
)
def test_found_records_are_judged_by_their_meaning(
    purpose: str, values: list[str], state: RecordState
) -> None:
    assert records.judge(expected(purpose), DnsAnswer(tuple(values))) == state


def test_a_lookup_without_an_answer_is_not_a_missing_record() -> None:
    assert records.judge(expected("ownership"), DnsAnswer(is_available=False)) == "unavailable"
