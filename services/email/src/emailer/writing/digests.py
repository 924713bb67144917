"""The digest of a mail's body, which DKIM signatures cover; whichever process builds the mail computes it."""

from __future__ import annotations

import hashlib
import re

DIGEST_BYTES = hashlib.sha256().digest_size
_SPACES = re.compile(rb"[ \t]++")


def body_digest(message: bytes) -> bytes:
    """Return the SHA-256 digest of the body of `message` in its relaxed form (RFC 6376)."""
    body = message.partition(b"\r\n\r\n")[2]
    ended = body if body.endswith(b"\r\n") else body + b"\r\n"
    kept = _SPACES.sub(b" ", ended).replace(b" \r\n", b"\r\n").rstrip(b"\r\n")
    return hashlib.sha256(kept + b"\r\n" if kept else b"").digest()
