"""The return path of a mail (VERP): an envelope sender that names its recipient, and is signed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from uuid import UUID

from emailer.settings import EmailSettings

_PREFIX = "b+"
_POSITION_BYTES = 2
_ID_BYTES = 16
# Half of the digest, as RFC 2104 advises; with these the local part has 58 of the 64 octets it may have.
_SIGNATURE_BYTES = 16
_LENGTH = _ID_BYTES + _POSITION_BYTES + _SIGNATURE_BYTES
_PURPOSE = b"tickwire return path 1\n"
# Mail servers may change upper and lower case, so it is written in base32.
_WRITTEN = re.compile(r"b\+(?P<token>[a-z2-7]{55})@[a-z0-9.-]{1,253}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ReturnPath:
    """Makes and reads return paths. Without a domain mails keep their own sender as the envelope's.

    `domain` is that of mails whose sender's domain has no return path of its own.

    The first key signs, all of them are valid: the key before is kept while its bounces may come.
    """

    domain: str | None = None
    keys: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, settings: EmailSettings) -> ReturnPath:
        """Return what `settings` describe."""
        secrets = (settings.secrets_key, settings.previous_secrets_key)
        # The secret also encrypts, with a key of its own.
        keys = tuple(
            hmac.digest(secret.get_secret_value().encode(), _PURPOSE, hashlib.sha256)
            for secret in secrets
            if secret is not None
        )
        return cls(settings.bounce_domain, keys)

    def address(self, email_id: UUID, position: int, *, sender: str, host: str | None = None) -> str:
        """Return the envelope sender of a mail to one recipient; `sender` is that of the mail itself.

        `host` is the one of the sender's domain, if it leads bounces here.
        """
        domain = host or self.domain
        if domain is None or not self.keys:
            return sender
        named = email_id.bytes + position.to_bytes(_POSITION_BYTES, "big")
        token = base64.b32encode(named + _sign(self.keys[0], named)).decode().rstrip("=").lower()
        return f"{_PREFIX}{token}@{domain}"

    def read(self, address: str) -> tuple[UUID, int] | None:
        """Return the mail and the position of the recipient that a return path names.

        Return None for what was not signed with one of the keys. The domain is not looked at: it may have
        been another when the mail left.
        """
        found = _WRITTEN.fullmatch(address.strip())
        if found is None:
            return None
        try:
            token = base64.b32decode(found["token"].upper() + "=")
        except binascii.Error:
            return None
        named, signature = token[: _LENGTH - _SIGNATURE_BYTES], token[_LENGTH - _SIGNATURE_BYTES :]
        # Every key is tried, so that the time does not say which one fitted.
        fits = [hmac.compare_digest(_sign(key, named), signature) for key in self.keys]
        if not any(fits):
            return None
        return UUID(bytes=named[:_ID_BYTES]), int.from_bytes(named[_ID_BYTES:], "big")


def _sign(key: bytes, named: bytes) -> bytes:
    return hmac.digest(key, named, hashlib.sha256)[:_SIGNATURE_BYTES]
