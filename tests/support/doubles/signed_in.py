"""Access tokens that are all valid, and their users; their issuer can be slow."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from contracts.scopes import Scope
from gateway.http.principal import TOKEN_PREFIX, Principal
from gateway.identity.access_tokens import Claims

SCOPES = frozenset({Scope.QUOTES_READ})


def token(number: int) -> str:
    """Return a text with the form of an access token."""
    return f"head.{number}.signature"


@dataclass
class SlowIssuer:
    """Verifies every token, when it may, and says that all of them are of one user."""

    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def verify(self, text: str) -> Claims:
        await self.may_answer.wait()
        return Claims("https://id.example.com", "sub", SCOPES, time.time() + 3600)

    async def find(self, _: None, claims: Claims, fingerprint: bytes) -> Principal:
        key_id = TOKEN_PREFIX + fingerprint.hex()
        return Principal(8, "Bob", "member", key_id, claims.scopes, ends_at=claims.ends_at)
