"""Bounces in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from chassis import queries
from chassis.postgres import Connection
from contracts import addresses
from contracts.emails import BounceKind
from contracts.mail import Stream
from emailer.bounces.reading import Bounce
from emailer.suppression.rules import Target

SQL = queries.load("emailer")

# Bounces of one recipient, and beyond them the first of each kind: anybody can write to a return path, and
# notices of absence must not hide that the address is gone.
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
        """The address, owner and stream that a suppression would be of."""
        return Target(self.owner_id, self.stream, addresses.comparable(self.address))

    @property
    def domain(self) -> str:
        """The destination domain."""
        return self.address.rpartition("@")[2]


@dataclass(frozen=True, slots=True)
class Seen:
    """The bounces of a recipient so far, and the kind of the present one if it was handed in before."""

    count: int
    has_hard: bool
    known: BounceKind | None

    @property
    def are_enough(self) -> bool:
        """Whether another one would have no effect."""
        return self.has_hard and self.count >= MOST_BOUNCES


async def look(connection: Connection, email_id: UUID, position: int, *, digest: bytes) -> Seen | None:
    """Return what is known of a recipient's bounces; None for an unknown recipient."""
    row = await connection.fetchrow(SQL["look_at_bounces"], email_id, position, digest)
    return None if row is None else Seen(**dict(row))


async def find(connection: Connection, email_id: UUID, position: int) -> BouncedRecipient | None:
    """Return a recipient, with its mail locked until the transaction ends."""
    row = await connection.fetchrow(SQL["find_bounced"], email_id, position)
    return None if row is None else BouncedRecipient(**dict(row))


async def note(connection: Connection, recipient: BouncedRecipient, bounce: Bounce, *, digest: bytes) -> bool:
    """Write a bounce down for the timeline; return whether it is new, and not one too many of its kind."""
    noted = await connection.fetchval(
        SQL["note_bounce"],
        *(recipient.email_id, recipient.position, digest, bounce.kind, bounce.detail, MOST_BOUNCES),
    )
    return noted is not None


async def settle(connection: Connection, recipient: BouncedRecipient, kind: BounceKind) -> bool:
    """Set the status of the recipient as the bounce says; return whether it changed."""
    if kind in ("hard", "soft", "refused"):
        # What is being sent, or waits to be sent, was sent before: that attempt decides.
        statement = "fail_bounced"
    elif kind == "delivered":
        statement = "deliver_reported"
    else:
        return False
    settled = await connection.fetchval(SQL[statement], recipient.email_id, recipient.position)
    return settled is not None
