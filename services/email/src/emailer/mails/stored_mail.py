"""A stored mail as delivery needs it, and the record of an attempt to deliver it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from contracts.domains import KeyAlgorithm
from contracts.emails import RecipientStatus
from emailer.mails.letters import Letter


@dataclass(frozen=True, slots=True)
class Signer:
    """A domain's key: `private` is DER (PKCS 8), and is never shown."""

    domain: str
    selector: str
    algorithm: KeyAlgorithm
    private: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredMail:
    """A stored mail as delivery needs it. `recipient_count` is the number of envelope recipients.

    Without `letter` the mail is stored in a form that cannot be read, and `flaw` says why; with one, `flaw`
    says why it cannot be signed now. `refusal` says why its owner may not send it. Bounces to
    `return_path_host`, a host of its sender's domain, arrive here.
    """

    id: UUID
    owner_id: str
    letter: Letter | None
    accepted_at: datetime
    send_at: datetime | None
    expires_at: datetime
    recipient_count: int
    traceparent: str | None
    request_id: str | None
    flaw: str = ""
    message_id: str | None = None
    refusal: str = ""
    signers: tuple[Signer, ...] = ()
    return_path_host: str | None = None

    @property
    def dated(self) -> datetime:
        """The time in its Date header: when it was due to be sent."""
        return max(self.accepted_at, self.send_at or self.accepted_at)


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """The record of one attempt, or unless `was_made`, of the reason why none was made."""

    at: datetime
    host: str
    outcome: RecipientStatus
    code: int | None
    text: str
    tls: bool = False
    was_made: bool = True
