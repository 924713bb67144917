"""The return path of a mail (VERP): an envelope sender that names its recipient, and is signed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from pydantic import SecretStr

_PREFIX = "b+"
_POSITION_BYTES = 2
_ID_BYTES = 16
# Half of the digest, as RFC 2104 advises; the local part then has 58 of the 64 octets allowed.
_SIGNATURE_BYTES = 16
_LENGTH = _ID_BYTES + _POSITION_BYTES + _SIGNATURE_BYTES
_PURPOSE = b"tickwire return path 1\n"
# Mail servers may change the case of letters, hence base32; of ASCII letters, as the Kelvin sign is a k, too.
_WRITTEN = re.compile(r"b\+(?P<token>[a-z2-7]{55})@[a-z0-9.-]{1,253}", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class ReturnPath:
    """Makes and reads return paths. Without a domain, a mail's own sender is the envelope sender.

    `domain` is used for mails whose sender's domain has no return path of its own.

    The first key signs, and all of them verify: the previous key is kept while bounces to it may arrive.
    """

    domain: str | None = None
    keys: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, domain: str | None, secrets: Iterable[SecretStr | None]) -> ReturnPath:
        """Return the return path at `domain`, signed with keys derived from those `secrets` that are set."""
        # The secret encrypts, too, so each purpose derives a key of its own.
        keys = tuple(
            hmac.digest(secret.get_secret_value().encode(), _PURPOSE, hashlib.sha256)
            for secret in secrets
            if secret is not None
        )
        return cls(domain, keys)

    def address(self, email_id: UUID, position: int, *, sender: str, host: str | None = None) -> str:
        """Return the envelope sender of a mail to one recipient; `sender` is that of the mail itself.

        `host` is that of the sender's domain, if bounces to it arrive here.
        """
        domain = host or self.domain
        if domain is None or not self.keys:
            return sender
        named = email_id.bytes + position.to_bytes(_POSITION_BYTES, "big")
        token = base64.b32encode(named + _sign(self.keys[0], named)).decode().rstrip("=").lower()
        return f"{_PREFIX}{token}@{domain}"

    def read(self, address: str) -> tuple[UUID, int] | None:
        """Return the mail and the position of the recipient that a return path identifies.

        Return None unless it is signed with one of the keys. The domain is ignored: it may have been
        different when the mail was sent.
        """
        found = _WRITTEN.fullmatch(address.strip())
        if found is None:
            return None
        try:
            token = base64.b32decode(found["token"].upper() + "=")
        except binascii.Error:
            return None
        named, signature = token[: _LENGTH - _SIGNATURE_BYTES], token[_LENGTH - _SIGNATURE_BYTES :]
        # Every key is tried, so that the time taken does not reveal which one matched.
        fits = [hmac.compare_digest(_sign(key, named), signature) for key in self.keys]
        if not any(fits):
            return None
        return UUID(bytes=named[:_ID_BYTES]), int.from_bytes(named[_ID_BYTES:], "big")


def _sign(key: bytes, named: bytes) -> bytes:
    return hmac.digest(key, named, hashlib.sha256)[:_SIGNATURE_BYTES]
