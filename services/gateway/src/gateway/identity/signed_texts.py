"""Signed texts that contain a small document: verified by their signature, and never stored."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import orjson


def signing_key(pepper: str, purpose: str) -> bytes:
    """Return the key that signs texts for `purpose`, and for no other purpose."""
    return hmac.digest(pepper.encode(), purpose.encode(), hashlib.sha256)


def signing_keys(pepper: str, previous: str | None, purpose: str) -> tuple[bytes, ...]:
    """Return the signing key, and that of the previous pepper, whose texts are still valid."""
    return tuple(signing_key(one, purpose) for one in (pepper, previous) if one is not None)


def sign(key: bytes, document: Mapping[str, Any]) -> str:
    """Return `document` as `<payload>.<signature>`, which has letters, digits, `-`, `_` and one `.`."""
    payload = _encoded(orjson.dumps(document))
    return f"{payload}.{_signature(key, payload)}"


def read(keys: Sequence[bytes], text: str) -> dict[str, Any] | None:
    """Return the document in `text`, or None when none of `keys` has signed it."""
    payload, _, signature = text.partition(".")
    # A lone surrogate, which JSON may contain, cannot be encoded for the comparison.
    if not text.isascii():
        return None
    if not any(hmac.compare_digest(signature, _signature(key, payload)) for key in keys):
        return None
    try:
        document = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (binascii.Error, orjson.JSONDecodeError):
        return None
    return dict(document)


def _signature(key: bytes, payload: str) -> str:
    return _encoded(hmac.digest(key, payload.encode(), hashlib.sha256))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
