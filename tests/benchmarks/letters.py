"""The mails of the benchmark: the same ones for every sender."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

PLAIN, SIGNED = "orders.example", "signed.example"
# A relay's mail goes to many domains, and no domain may have all connections.
_DOMAINS = 20
_TEXT = "Hello,\n\nyour order has been executed at the price you asked for.\n\nRegards\nTickwire\n" * 2


@dataclass(frozen=True)
class BenchLetter:
    """A mail of 166 characters to one recipient."""

    sender: str
    to: str
    subject: str
    text: str

    @classmethod
    def of(cls, number: int, *, domain: str = PLAIN) -> Self:
        """Return the mail of this number, from an address of `domain`."""
        return cls(
            f"Orders <orders@{domain}>",
            f"Reader {number} <reader-{number}@host-{number % _DOMAINS}.example.com>",
            f"Your order {number}",
            _TEXT,
        )
