"""The secrets of webhooks: generated here, and stored encrypted with a key derived from the pepper."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.identity import keys

_BYTES = 32
_PURPOSE = b"tickwire webhook secrets"


class UnreadableSecret(Exception):
    """No configured pepper decrypts the secret."""


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """An encrypted secret, and the fingerprint of the pepper with which it was encrypted."""

    content: bytes
    sealed_with: str


class SecretSafe:
    """Encrypts secrets with the pepper; those encrypted with the previous pepper can still be read."""

    def __init__(self, pepper: str, previous_pepper: str | None = None) -> None:
        self.current = keys.fingerprint(pepper)
        known = [pepper, *([previous_pepper] if previous_pepper else [])]
        self._fernets = {keys.fingerprint(one): _fernet(one) for one in known}

    def new(self) -> SealedSecret:
        """Return a new random secret, encrypted."""
        return self.seal(secrets.token_bytes(_BYTES))

    def seal(self, secret: bytes) -> SealedSecret:
        """Return `secret` encrypted with the current pepper."""
        return SealedSecret(self._fernets[self.current].encrypt(secret), self.current)

    def open(self, content: bytes, sealed_with: str) -> bytes:
        """Return the decrypted secret. Raise `UnreadableSecret` when its pepper is not configured."""
        fernet = self._fernets.get(sealed_with)
        if fernet is None:
            raise UnreadableSecret(f"the pepper {sealed_with} is not configured")
        try:
            return fernet.decrypt(content)
        except InvalidToken:
            raise UnreadableSecret("the stored secret was changed") from None


def shown(secret: bytes) -> str:
    """Return a secret as Standard Webhooks write it, with a prefix that secret scanners know."""
    return f"whsec_{base64.b64encode(secret).decode()}"


def _fernet(pepper: str) -> Fernet:
    # The pepper is random, so a fast derivation is enough: a key of the right length for one purpose.
    derived = HKDF(hashes.SHA256(), 32, salt=None, info=_PURPOSE).derive(pepper.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
