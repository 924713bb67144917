"""DKIM keys: generated here, and stored encrypted, so that nobody can sign with a copy of the database."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from contracts.domains import KeyAlgorithm
from emailer.errors import UnreadableKey

_RSA_BITS = 2048
_EXPONENT = 65537
_PURPOSE = b"tickwire dkim keys"


@dataclass(frozen=True, slots=True)
class NewSigningKey:
    """A key as it is stored: the private part encrypted, the public part as its DNS record has it."""

    selector: str
    algorithm: KeyAlgorithm
    sealed: bytes = field(repr=False)
    public_record: str


class KeySafe:
    """Encrypts private keys with a secret; keys encrypted with the previous secret can still be decrypted."""

    def __init__(self, secret: str, previous: str | None = None) -> None:
        self._present = _fernet(secret)
        ring = [self._present, *([_fernet(previous)] if previous else [])]
        self._ring = MultiFernet(ring)

    def seal(self, private: bytes) -> bytes:
        """Return `private` encrypted and authenticated."""
        return self._ring.encrypt(private)

    def open(self, sealed: bytes) -> bytes:
        """Return the decrypted key. Raise `UnreadableKey` when neither secret fits."""
        try:
            return self._ring.decrypt(sealed)
        except InvalidToken:
            raise UnreadableKey("the DKIM key cannot be decrypted with EMAIL_SECRETS_KEY") from None

    def renewed(self, sealed: bytes) -> bytes | None:
        """Return the key encrypted with the current secret; None when it already is."""
        try:
            self._present.decrypt(sealed)
        except InvalidToken:
            return self.seal(self.open(sealed))
        return None


def make(safe: KeySafe, algorithm: KeyAlgorithm, *, at: datetime) -> NewSigningKey:
    """Make a key with a selector of its own; an RSA key takes about 100 ms of CPU time."""
    private = (
        rsa.generate_private_key(_EXPONENT, _RSA_BITS)
        if algorithm == "rsa"
        else ed25519.Ed25519PrivateKey.generate()
    )
    encoded = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key()
    # RFC 8463 publishes the raw key, RFC 6376 a structure that names the algorithm.
    shown = (
        public.public_bytes_raw()
        if isinstance(public, ed25519.Ed25519PublicKey)
        else public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return NewSigningKey(
        selector=f"tw{at:%Y%m%d}{secrets.token_hex(3)}{algorithm[0]}",
        algorithm=algorithm,
        sealed=safe.seal(encoded),
        public_record=f"v=DKIM1; k={algorithm}; p={base64.b64encode(shown).decode()}",
    )


def _fernet(secret: str) -> Fernet:
    # The secret is random, so a fast derivation is enough: a key of the right length for one purpose.
    derived = HKDF(hashes.SHA256(), 32, salt=None, info=_PURPOSE).derive(secret.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
