"""API keys: `tw_live_<id>_<secret>`; only a keyed hash of the secret is ever stored."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

_ID = r"[0-9a-f]{16}"
_KEY = re.compile(rf"tw_live_({_ID})_([A-Za-z0-9_-]{{43}})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key in its parts: the id finds it, the secret proves it."""

    id: str
    secret: str

    def __str__(self) -> str:
        return f"tw_live_{self.id}_{self.secret}"


def new_key() -> ApiKey:
    """A key that nobody has."""
    return ApiKey(secrets.token_hex(8), secrets.token_urlsafe(32))


def parse(text: str) -> ApiKey | None:
    """The parts of a key, or None when `text` is not one."""
    match = _KEY.fullmatch(text)
    return ApiKey(match[1], match[2]) if match else None


def is_id(text: str) -> bool:
    """Whether `text` can be the id of a key."""
    return re.fullmatch(_ID, text) is not None


def digest(pepper: str, key: ApiKey) -> bytes:
    """What is stored of a key: HMAC-SHA-256 of its secret with the pepper."""
    return hmac.new(pepper.encode(), f"{key.id}:{key.secret}".encode(), hashlib.sha256).digest()
