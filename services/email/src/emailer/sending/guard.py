"""The staging guard: a system that is not in production sends only to the recipients on a list."""

from __future__ import annotations

import re
from dataclasses import dataclass

from emailer.mails.domain_limits import in_ascii

_ENTRY = re.compile(r"(?:[^@\s]+@|@)?[^@\s]+\.[^@\s]+")


@dataclass(frozen=True, slots=True)
class RecipientGuard:
    """The addresses and domains that may receive mail; if the list is empty, all may."""

    allowed: frozenset[str] = frozenset()

    @classmethod
    def read(cls, text: str | None) -> RecipientGuard:
        """Return the guard for a list such as `me@example.com, @example.org`. Raise `ValueError`."""
        entries = [entry.strip().lower() for entry in (text or "").split(",") if entry.strip()]
        for entry in entries:
            if not _ENTRY.fullmatch(entry):
                raise ValueError(f"{entry!r} must be an address (me@example.com) or a domain (@example.com)")
        return cls(frozenset(_comparable(entry if "@" in entry else f"@{entry}") for entry in entries))

    def refusal_of(self, address: str) -> str | None:
        """Return the reason to record in the attempt if no mail may be sent to `address`, else None."""
        if self.allows(address):
            return None
        return "not sent: the recipient is not in EMAIL_ALLOWED_RECIPIENTS of this system"

    def allows(self, address: str) -> bool:
        """Return whether mail may be sent to `address`."""
        if not self.allowed:
            return True
        written = _comparable(address)
        return written in self.allowed or "@" + written.rpartition("@")[2] in self.allowed


def _comparable(entry: str) -> str:
    """Return an address or `@domain` in lower case, with the domain in ASCII, as addresses are stored."""
    local, at, domain = entry.rpartition("@")
    return f"{local}{at}{in_ascii(domain)}".lower()
