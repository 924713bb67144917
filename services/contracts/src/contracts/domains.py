"""Messages about sender domains: their owners, and the DNS records that prove the ownership."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import AfterValidator, Field

from contracts import addresses
from contracts.message import Contract, Event, Moment, Next, Reply, Request
from contracts.topology import EMAIL

# The names of its records are longer, and DNS ends at 253 characters.
MOST_CHARACTERS = 180

DomainStatus = Literal["pending", "verified", "lost"]
RecordPurpose = Literal["ownership", "dkim", "spf", "dmarc", "return_path"]
RecordState = Literal["unchecked", "found", "missing", "different", "unavailable"]
KeyAlgorithm = Literal["rsa", "ed25519"]
KeyState = Literal["pending", "active", "retiring"]

# The value of ALLOWED_SENDER_DOMAINS that allows verified domains only.
_NO_OTHERS = "none"


def domain_name(text: str) -> str:
    """Return a domain in the form of DNS: lower case and ASCII (IDNA 2008). Raise `ValueError`."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"must have at most {MOST_CHARACTERS} characters")
    if set(text) & set('@<>" '):
        raise ValueError("must be a domain such as example.com")
    try:
        name = addresses.parse(f"postmaster@{text}").domain.lower()
    except ValueError as error:
        raise ValueError(f"must be a domain such as example.com: {error}") from None
    if name.startswith("[") or len(name) > MOST_CHARACTERS:
        raise ValueError(f"must be a domain of at most {MOST_CHARACTERS} characters in ASCII")
    return name


# IDNA 2008 reads three other full stops as one.
_SEVERAL_LABELS = r"""^[^@<>" ]+[.\u3002\uff0e\uff61][^@<>" ]+$"""
DomainName = Annotated[
    str,
    Field(max_length=MOST_CHARACTERS, json_schema_extra={"pattern": _SEVERAL_LABELS}),
    AfterValidator(domain_name),
]


@dataclass(frozen=True, slots=True)
class AllowedSenders:
    """The domains from which the operator allows every owner to send; None allows all domains."""

    domains: frozenset[str] | None = None

    @classmethod
    def read(cls, text: str) -> AllowedSenders:
        """Parse `ALLOWED_SENDER_DOMAINS`: empty (all), `none`, or a list. Raise `ValueError`."""
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        if not entries:
            return cls()
        return cls(frozenset(domain_name(entry) for entry in entries if entry.lower() != _NO_OTHERS))

    def allows(self, domain: str) -> bool:
        """Return whether every owner may send from `domain`."""
        return self.domains is None or domain.lower() in self.domains

    def named(self, domains: Iterable[str]) -> list[str]:
        """Return those of `domains` that the operator lists: their keys sign the mails of every owner."""
        return [domain for domain in domains if self.domains is not None and domain in self.domains]


class DnsRecord(Contract):
    """A DNS record to set, and the result of its last check.

    `found` are the values in DNS. Only the record with `required` decides whether the domain is verified;
    without the others, mail from the domain is more likely to be classified as spam. A domain without a DMARC
    record of its own uses that of a parent domain, named by `inherited_from`.
    """

    purpose: RecordPurpose
    type: Literal["TXT", "CNAME"]
    name: str
    value: str
    required: bool
    state: RecordState = "unchecked"
    found: list[str] = Field(default_factory=list)
    last_found_at: Moment | None = None
    inherited_from: str | None = None


class DkimKey(Contract):
    """A key that mails are signed with, named by its selector; the private part is never shown.

    `pending` until its record is found, then `active`. After a rotation it is `retiring`: it signs no
    new mails, and its record must stay until `remove_record_after` for mails in transit.
    """

    selector: str
    algorithm: KeyAlgorithm
    state: KeyState
    created_at: Moment
    active_since: Moment | None = None
    remove_record_after: Moment | None = None


class Domain(Reply):
    """A domain from which its owner may send once it is verified.

    `lost`: the record that proves the ownership was missing for too long. `return_path_host` is the domain
    that receives bounces.
    """

    id: UUID
    name: str
    status: DomainStatus
    version: int
    created_at: Moment
    verified_at: Moment | None = None
    checked_at: Moment | None = None
    return_path_host: str
    records: list[DnsRecord]
    dkim: list[DkimKey]
    next: Next | None = None


class CreateDomain(Request):
    """Store a domain of `owner_id`.

    A repeated `request_key` of an owner returns the first domain.
    """

    message_type: ClassVar[str] = "domains.create.v1"
    reply: ClassVar[type[Reply]] = Domain
    service: ClassVar[str] = EMAIL
    domain_id: UUID
    owner_id: str
    name: str
    request_key: str | None = None


class GetDomain(Request):
    """Ask for a domain of `owner_id`; another owner's is not found."""

    message_type: ClassVar[str] = "domains.get.v1"
    reply: ClassVar[type[Reply]] = Domain
    service: ClassVar[str] = EMAIL
    domain_id: UUID
    owner_id: str


class VerifyDomain(Request):
    """Check the records of a domain now; the answer is its new state."""

    message_type: ClassVar[str] = "domains.verify.v1"
    reply: ClassVar[type[Reply]] = Domain
    service: ClassVar[str] = EMAIL
    domain_id: UUID
    owner_id: str


class RotateDkim(Request):
    """Create new DKIM keys for a domain; the old ones sign until the records of the new ones are found.

    With `version` only that version is changed. A repeated `request_key` creates no second set of keys.
    """

    message_type: ClassVar[str] = "domains.rotate-dkim.v1"
    reply: ClassVar[type[Reply]] = Domain
    service: ClassVar[str] = EMAIL
    domain_id: UUID
    owner_id: str
    version: int | None = None
    request_key: str | None = None


class DeleteDomain(Request):
    """Remove a domain, at `version` if given; the answer is its last state.

    From then on no mail is sent from it.
    """

    message_type: ClassVar[str] = "domains.delete.v1"
    reply: ClassVar[type[Reply]] = Domain
    service: ClassVar[str] = EMAIL
    domain_id: UUID
    owner_id: str
    version: int | None = None


class Domains(Reply):
    """A page of domains; the next one begins behind `next_cursor`."""

    data: list[Domain]
    next_cursor: UUID | None


class ListDomains(Request):
    """Ask for domains of `owner_id`, newest first, those before the id `before`."""

    message_type: ClassVar[str] = "domains.list.v1"
    reply: ClassVar[type[Reply]] = Domains
    service: ClassVar[str] = EMAIL
    owner_id: str
    name: str | None = None
    status: list[DomainStatus] = Field(default_factory=list)
    created_after: Moment | None = None
    created_before: Moment | None = None
    before: UUID | None = None
    limit: int = Field(default=50, ge=1, le=200)


class DomainChanged(Event):
    """A domain was verified, lost or removed (exchange `events`); the highest `version` counts."""

    message_type: ClassVar[str] = "domain.changed.v1"
    routing_key: ClassVar[str] = "email.domain-changed"
    domain_id: UUID
    owner_id: str
    name: str
    is_verified: bool
    version: int
