"""Texts that hold a small document and prove where it comes from: signed here, stored nowhere."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import orjson


def signing_key(pepper: str, purpose: str) -> bytes:
    """Return the key that texts for `purpose` are signed with, which is of no use for any other purpose."""
    return hmac.digest(pepper.encode(), purpose.encode(), hashlib.sha256)


def sign(key: bytes, document: Mapping[str, Any]) -> str:
    """Return `document` as `<payload>.<signature>`, of letters, digits, `-`, `_` and one `.`."""
    payload = _encoded(orjson.dumps(document))
    return f"{payload}.{_signature(key, payload)}"


def read(key: bytes, text: str) -> dict[str, Any] | None:
    """Return the document that `text` holds, or None when it is forged or damaged."""
    payload, _, signature = text.partition(".")
    # A lone surrogate, which JSON may carry, cannot even be compared.
    if not text.isascii() or not hmac.compare_digest(signature, _signature(key, payload)):
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
