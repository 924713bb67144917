"""DKIM signatures (RFC 6376, RFC 8463) of a mail's bytes: relaxed/relaxed, with RSA and Ed25519."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from emailer.mails.stored_mail import Signer

# Headers that a reader sees, or that a mail program acts on; those that a mail lacks are left out.
SIGNED = (
    *("From", "Reply-To", "To", "Cc", "Subject", "Date", "Message-ID", "In-Reply-To", "References"),
    *("MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Auto-Submitted"),
    *("List-Unsubscribe", "List-Unsubscribe-Post", "List-Help", "List-Archive", "List-Owner", "List-Post"),
    *("List-Subscribe", "List-Id", "Feedback-ID", "Precedence"),
)
# Listed once more than they occur, so that adding a second one breaks the signature.
OVERSIGNED = ("From", "Subject")

_LINE = 76
_MOST_KEYS_READ = 512
_FOLD = re.compile(rb"\r\n(?=[ \t])")
_SPACES = re.compile(rb"[ \t]++")


def sign(message: bytes, signers: Sequence[Signer], *, at: datetime, body_digest: bytes) -> bytes:
    """Return `message` (with CRLF line ends) with a signature by each signer in front, dated `at`.

    `body_digest` is that of its body. The same message, keys and time produce the same bytes.
    """
    if not signers:
        return message
    head = message[: message.find(b"\r\n\r\n")]
    # In a mail that is written here, each header occurs once.
    pairs = (line.partition(b":") for line in _FOLD.sub(b"", head + b"\r\n").split(b"\r\n") if line)
    headers = {name.lower(): value for name, _, value in pairs}
    signed = [name for name in SIGNED if name.lower().encode() in headers]
    signed_data = b"".join(
        _relaxed(name.lower().encode(), headers[name.lower().encode()]) + b"\r\n" for name in signed
    )
    body_hash = base64.b64encode(body_digest).decode()
    names = [*signed, *(name for name in OVERSIGNED if name in signed)]
    written = []
    for signer in signers:
        unsigned = _unsigned(signer, names, body_hash, at)
        data = signed_data + _relaxed(b"dkim-signature", unsigned.encode())
        key = _read(signer.private)
        if isinstance(key, Ed25519PrivateKey):
            octets = key.sign(hashlib.sha256(data).digest())
        else:
            octets = key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        signature = base64.b64encode(octets).decode()
        lines = [signature[start : start + _LINE - 2] for start in range(0, len(signature), _LINE - 2)]
        written.append(f"DKIM-Signature: {unsigned}" + "".join(f"\r\n  {line}" for line in lines) + "\r\n")
    return b"".join((*(header.encode() for header in written), message))


def _unsigned(signer: Signer, names: Sequence[str], body_hash: str, at: datetime) -> str:
    """Return the value of the header up to where the signature begins."""
    lines = [f" h={names[0]}"]
    for name in names[1:]:
        lines[-1] += ":"
        if len(lines[-1]) + len(name) >= _LINE:
            lines.append("  ")
        lines[-1] += name
    return "\r\n".join(
        (
            f"v=1; a={signer.algorithm}-sha256; c=relaxed/relaxed; d={signer.domain};",
            f" s={signer.selector}; t={int(at.timestamp())};",
            *lines[:-1],
            lines[-1] + ";",
            f" bh={body_hash};",
            " b=",
        )
    )


def _relaxed(name: bytes, value: bytes) -> bytes:
    return name + b":" + _SPACES.sub(b" ", _FOLD.sub(b"", value)).strip(b" ")


@lru_cache(maxsize=_MOST_KEYS_READ)
def _read(private: bytes) -> RSAPrivateKey | Ed25519PrivateKey:
    # The keys were made and encrypted here; checking their primes would take as long as a hundred signatures.
    key = serialization.load_der_private_key(private, None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, RSAPrivateKey | Ed25519PrivateKey)
    return key
