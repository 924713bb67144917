"""The DNS records that a domain should have, and the comparison with DNS's answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from contracts.domains import RecordPurpose, RecordState
from emailer.domains.stored import StoredDomain

RecordType = Literal["TXT", "CNAME"]

_OWNERSHIP = "tickwire-domain-verification"
_SPF = "v=spf1"
_DMARC = "v=dmarc1"
# For a longer name, those nearest to the root are queried.
_MOST_ABOVE = 5
_DMARC_POLICY = re.compile(r"\bp\s*=\s*(none|quarantine|reject)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """The operator's values in the records; without a value, its record is not shown."""

    spf_mechanisms: str | None = None
    return_path_target: str | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """A record that the owner should publish."""

    purpose: RecordPurpose
    type: RecordType
    name: str
    value: str

    @property
    def key(self) -> str:
        """The identity of the record among those of its domain."""
        return f"{self.purpose} {self.name}"

    @property
    def is_required(self) -> bool:
        """Whether the domain cannot be verified without it."""
        return self.purpose == "ownership"


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """DNS's answer for a name: its values, none, or no answer at all.

    `inherited_from` is the name that was found, if it is not the one that was asked for first.
    """

    values: tuple[str, ...] = ()
    is_available: bool = True
    inherited_from: str | None = None


def expected(domain: StoredDomain, settings: RecordSettings) -> list[Expected]:
    """Return the records that `domain` should have; those of retiring keys are not checked any more."""
    name = domain.name
    found = [Expected("ownership", "TXT", f"_tickwire.{name}", f"{_OWNERSHIP}={domain.token}")]
    found += [
        Expected("dkim", "TXT", f"{key.selector}._domainkey.{name}", key.public_record)
        for key in domain.keys
        if key.state != "retiring"
    ]
    if settings.spf_mechanisms:
        found.append(Expected("spf", "TXT", name, f"{_SPF} {settings.spf_mechanisms} ~all"))
    found.append(Expected("dmarc", "TXT", f"_dmarc.{name}", "v=DMARC1; p=none"))
    if settings.return_path_target:
        found.append(Expected("return_path", "CNAME", domain.return_path_host, settings.return_path_target))
    return found


def inheritable(record: Expected) -> list[str]:
    """Return the parent names that a missing record may be inherited from, the nearest first.

    A domain without a policy of its own has that of its organizational domain (RFC 7489 6.6.3). Finding that
    domain would need the public suffix list, so all parent names are queried instead.
    """
    if record.purpose != "dmarc":
        return []
    labels = record.name.split(".")[2:]
    above = [labels[start:] for start in range(len(labels) - 1)]
    return [".".join(["_dmarc", *one]) for one in above[-_MOST_ABOVE:]]


def judge(record: Expected, answer: DnsAnswer) -> RecordState:
    """Return the state of `record` according to `answer`. Unrelated values under its name do no harm."""
    if not answer.is_available:
        return "unavailable"
    values = relevant(record, answer.values)
    if not values:
        return "missing"
    return "found" if _fits(record, values) else "different"


def relevant(record: Expected, values: Sequence[str]) -> list[str]:
    """Return those of `values` that serve the same purpose as `record`."""
    starts = {"ownership": f"{_OWNERSHIP}=", "spf": _SPF, "dmarc": _DMARC}.get(record.purpose, "")
    return [value for value in values if value.strip().lower().startswith(starts)]


def _fits(record: Expected, values: Sequence[str]) -> bool:
    if record.purpose == "ownership":
        # Other owners or installations may have published values of their own.
        return record.value in (value.strip() for value in values)
    if len(values) != 1:
        # More than one is an error (RFC 7208 4.5, RFC 7489 6.6.3), or undefined (RFC 6376 3.6.2).
        return False
    found = values[0].strip()
    if record.purpose == "dkim":
        wanted = _tags(record.value)
        given = {"k": "rsa"} | _tags(found)
        return (given.get("p"), given["k"]) == (wanted["p"], wanted["k"])
    if record.purpose == "spf":
        # The owner may allow other senders, too, and choose another `all`.
        return set(record.value.lower().split()[1:-1]) <= set(found.lower().split())
    if record.purpose == "dmarc":
        return _DMARC_POLICY.search(found) is not None
    return found.rstrip(".").lower() == record.value.rstrip(".").lower()


def _tags(text: str) -> dict[str, str]:
    """Return the tags of a DKIM record (RFC 6376 3.2), without the white space that is allowed anywhere."""
    pairs = (part.partition("=") for part in text.split(";") if "=" in part)
    return {name.strip(): "".join(value.split()) for name, _, value in pairs}
