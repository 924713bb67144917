"""E-mail addresses once `addresses.parse` has parsed them.

They are apart from the parser, whose libraries take half a second to import: a process that only writes
addresses need not load them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParsedAddress:
    """A display name (may be empty) and an address, which is ASCII unless its local part cannot be."""

    name: str
    address: str

    @property
    def domain(self) -> str:
        """The part after the @."""
        return self.address.rpartition("@")[2]

    @property
    def comparable(self) -> str:
        """The form in which addresses are compared, see `comparable`."""
        return comparable(self.address)

    @property
    def written(self) -> str:
        """The address as people write it, to be shown to them; a header needs further encoding."""
        return f"{self.name} <{self.address}>" if self.name else self.address

    @property
    def needs_utf8(self) -> bool:
        """Return whether this address needs a relay with SMTPUTF8."""
        return not self.address.isascii()


def comparable(address: str) -> str:
    """Return the form of a parsed address for comparisons, which ignore case."""
    return address.lower()
