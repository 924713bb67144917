"""API keys: `tw_live_<id>_<secret><checksum>`; only a keyed hash of the secret is ever stored.

The checksum is the CRC-32 of everything before it. With it a secret scanner, and the gateway before any
look-up, can distinguish a key from a similar text. Keys without a checksum, which earlier releases created,
work until they are rotated.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass

_ID = r"[0-9a-f]{16}"
_SECRET_DIGITS = 43
_CHECKSUM_DIGITS = 6
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY = re.compile(rf"tw_live_({_ID})_([0-9A-Za-z]{{{_SECRET_DIGITS}}})([0-9A-Za-z]{{{_CHECKSUM_DIGITS}}})")
_WITHOUT_CHECKSUM = re.compile(rf"tw_live_({_ID})_([A-Za-z0-9_-]{{43}})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key in its parts: the id for the look-up, and the secret as the proof."""

    id: str
    secret: str
    has_checksum: bool = True

    def __str__(self) -> str:
        text = f"tw_live_{self.id}_{self.secret}"
        return text + checksum(text) if self.has_checksum else text


def new_key() -> ApiKey:
    """Return a new random key."""
    return ApiKey(new_id(), new_secret())


def new_id() -> str:
    """Return an id for a key."""
    return secrets.token_hex(8)


def new_secret() -> str:
    """Return 256 random bits as the secret of a key."""
    return _base62(secrets.randbits(256), _SECRET_DIGITS)


def derive_secret(pepper: str, *context: str) -> str:
    """Return the secret that belongs to `context`, so that it can be shown again without being stored.

    `context` holds the id of the key and the idempotency key of the request that asked for it.
    """
    message = "".join(f"{len(part)}:{part}" for part in ("secret of an API key", *context))
    found = hmac.new(pepper.encode(), message.encode(), hashlib.sha256).digest()
    return _base62(int.from_bytes(found, "big"), _SECRET_DIGITS)


def fingerprint(pepper: str) -> str:
    """Return a fingerprint that identifies the pepper without revealing it."""
    return hmac.digest(pepper.encode(), b"which pepper", hashlib.sha256)[:4].hex()


def parse(text: str) -> ApiKey | None:
    """Return the parts of a key, or None when `text` is not one."""
    match = _KEY.fullmatch(text)
    if match is not None:
        is_key = hmac.compare_digest(checksum(text[:-_CHECKSUM_DIGITS]), match[3])
        return ApiKey(match[1], match[2]) if is_key else None
    match = _WITHOUT_CHECKSUM.fullmatch(text)
    return ApiKey(match[1], match[2], has_checksum=False) if match else None


def is_id(text: str) -> bool:
    """Return whether `text` has the form of a key id."""
    return re.fullmatch(_ID, text) is not None


def digest(pepper: str, key: ApiKey) -> bytes:
    """Return the stored digest of a key: the HMAC-SHA-256 of its secret with the pepper."""
    return hmac.new(pepper.encode(), f"{key.id}:{key.secret}".encode(), hashlib.sha256).digest()


def checksum(text: str) -> str:
    """Return the CRC-32 of `text` in base 62."""
    return _base62(zlib.crc32(text.encode()), _CHECKSUM_DIGITS)


def _base62(number: int, digits: int) -> str:
    found = ""
    for _ in range(digits):
        number, digit = divmod(number, 62)
        found = _DIGITS[digit] + found
    return found
