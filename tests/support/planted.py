"""Secrets that are planted on purpose, and the search for them in places where they must not be."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import quote

_LONG = 32
_PART = 14


@dataclass
class Planted:
    """Secrets by name. One counts as found in any form of it, and when only its beginning or end is there."""

    secrets: dict[str, str] = field(default_factory=dict)

    def plant(self, name: str, secret: str) -> str:
        """Look for `secret` from now on; gives it back."""
        self.secrets[name] = secret
        return secret

    def found_in(self, said: str | bytes) -> list[str]:
        """Return the names of the secrets in `said`."""
        text = said.decode("latin-1") if isinstance(said, bytes) else said
        return [name for name, secret in self.secrets.items() if any(form in text for form in _forms(secret))]


def _forms(secret: str) -> set[str]:
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    parts = {secret[:_PART], secret[-_PART:]} if len(secret) >= _LONG else set()
    return {secret, quote(secret, safe=""), encoded} | parts
