"""The Idempotency-Key header: the same key and body give the same answer, once."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from chassis.errors import InvalidInput

_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE = re.compile(r"[\x21\x23-\x7e]+")
_LONGEST = 255


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's name for one request, and the hash of what it asked for."""

    key: str
    body_hash: bytes


def read(header: str | None, method_and_path: str, body: bytes) -> IdempotencyKey | None:
    """The key of a request, or None without the header. Raises `InvalidInput` for one that is malformed."""
    if header is None:
        return None
    quoted = _QUOTED.fullmatch(header.strip())
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else header.strip()
    if not key or len(key) > _LONGEST or not (quoted or _BARE.fullmatch(key)):
        raise InvalidInput(f"Idempotency-Key is a quoted string of 1 to {_LONGEST} printable characters.")
    digest = hasher(method_and_path)
    digest.update(body)
    return IdempotencyKey(key, digest.digest())


def hasher(method_and_path: str) -> hashlib._Hash:
    """The beginning of a request's hash, for a body that comes in parts."""
    return hashlib.sha256(method_and_path.encode() + b"\n")
