"""Fair claims: recipients that are ready wait in lanes by stream, owner and domain, and each gets its share.

A claim costs one index probe for each lane that it takes from, however many mails wait in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, get_args
from uuid import UUID

from contracts.mail import Stream

STREAMS: tuple[Stream, ...] = get_args(Stream)


class MailLane(NamedTuple):
    """The mail of one owner to one domain in one stream. A tuple, because it is hashed often."""

    stream: Stream
    owner_id: str
    domain: str


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a claim: its holder, its lease, and the most bytes of mails, in all and by owner."""

    holder: UUID
    lease_s: float
    most_bytes: int
    bytes_of: Mapping[str, int] = field(default_factory=dict)
