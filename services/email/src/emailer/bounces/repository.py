"""Bounces in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from chassis import queries
from chassis.postgres import Connection
from contracts import parsed_addresses
from contracts.emails import BounceKind
from contracts.mail import Stream
from emailer.bounces.reading import Bounce
from emailer.suppression.rules import Target

_SQL = queries.of("emailer")

# Bounces kept for one recipient; beyond them only the first of each kind: anybody can write to a return path,
# and out-of-office replies must not hide that the address is gone.
MOST_BOUNCES = 20


@dataclass(frozen=True, slots=True)
class BouncedRecipient:
    """The recipient that a bounce is about."""

    email_id: UUID
    position: int
    owner_id: str
    stream: Stream
    address: str

    @property
    def target(self) -> Target:
        """The address, owner and stream that a suppression would apply to."""
        return Target(self.owner_id, self.stream, parsed_addresses.comparable(self.address))

    @property
    def domain(self) -> str:
        """The destination domain."""
        return self.address.rpartition("@")[2]


@dataclass(frozen=True, slots=True)
class Seen:
    """The mail's owner, the recipient's bounces so far, and the kind of this one if submitted before."""

    owner_id: str
    count: int
    has_hard: bool
    known: BounceKind | None

    @property
    def are_enough(self) -> bool:
        """Whether another one would have no effect."""
        return self.has_hard and self.count >= MOST_BOUNCES


async def look(connection: Connection, email_id: UUID, position: int, *, digest: bytes) -> Seen | None:
    """Return the summary of a recipient's earlier bounces; None for an unknown recipient."""
    row = await connection.fetchrow(_SQL["look_at_bounces"], email_id, position, digest)
    return None if row is None else Seen(**dict(row))


async def find(connection: Connection, email_id: UUID, position: int) -> BouncedRecipient | None:
    """Return a recipient, locked until the transaction ends."""
    row = await connection.fetchrow(_SQL["find_bounced"], email_id, position)
    return None if row is None else BouncedRecipient(**dict(row))


async def note(connection: Connection, recipient: BouncedRecipient, bounce: Bounce, *, digest: bytes) -> bool:
    """Store a bounce for the timeline; return False if it is a duplicate, or one too many of its kind."""
    noted = await connection.fetchval(
        _SQL["note_bounce"],
        *(recipient.email_id, recipient.position, digest, bounce.kind, bounce.detail, MOST_BOUNCES),
    )
    return noted is not None


async def settle(connection: Connection, recipient: BouncedRecipient, kind: BounceKind) -> bool:
    """Set the recipient's status to match the bounce; return whether it changed."""
    if kind in ("hard", "soft", "refused"):
        # If it is being sent again, or waits to be, the bounce is of an earlier attempt: the new one decides.
        statement = "fail_bounced"
    elif kind == "delivered":
        statement = "deliver_reported"
    else:
        return False
    settled = await connection.fetchval(_SQL[statement], recipient.email_id, recipient.position)
    return settled is not None
