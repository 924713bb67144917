"""Files encrypted with a passphrase: AES-256-GCM in chunks whose order is authenticated.

A file begins with a magic number and the salt of the key (scrypt). The nonce of each chunk has its number and
whether it is the last one, so that chunks cannot be changed, swapped, repeated or left out.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from upkeep.errors import UpkeepError

SUFFIX = ".sealed"
_MARK = b"tickwire-sealed-1\n"
_SALT_BYTES = 16
_CHUNK_BYTES = 1 << 20
_TAG_BYTES = 16
_SHORTEST = 16


def require_length(passphrase: str) -> None:
    """Raise `UpkeepError` for a passphrase that is too short, as that of an empty file is."""
    if len(passphrase) < _SHORTEST:
        raise UpkeepError(f"BACKUP_KEY must have at least {_SHORTEST} characters, in BACKUP_KEY_FILE, too.")


def seal(source: Path, target: Path, passphrase: str) -> None:
    """Encrypt `source` into `target` with `passphrase`. Raise `UpkeepError` if it is too short."""
    require_length(passphrase)
    salt = secrets.token_bytes(_SALT_BYTES)
    cipher = _cipher(passphrase, salt)
    with source.open("rb") as clear, target.open("wb") as sealed:
        sealed.write(_MARK + salt)
        for number, is_last, chunk in _chunks(clear, _CHUNK_BYTES):
            sealed.write(cipher.encrypt(_nonce(number, is_last=is_last), chunk, None))


def open_sealed(source: Path, target: Path, passphrase: str) -> None:
    """Decrypt `source` into `target`. Raise `UpkeepError` for a wrong passphrase or a changed file."""
    with source.open("rb") as sealed, target.open("wb") as clear:
        if sealed.read(len(_MARK)) != _MARK:
            raise UpkeepError(f"{source} is not an encrypted backup.")
        cipher = _cipher(passphrase, sealed.read(_SALT_BYTES))
        try:
            for number, is_last, chunk in _chunks(sealed, _CHUNK_BYTES + _TAG_BYTES):
                clear.write(cipher.decrypt(_nonce(number, is_last=is_last), chunk, None))
        except InvalidTag:
            raise UpkeepError(
                f"{source} cannot be decrypted: BACKUP_KEY is wrong, or the file was changed."
            ) from None


def is_sealed(file: Path) -> bool:
    """Return whether `file` is encrypted."""
    with file.open("rb") as found:
        return found.read(len(_MARK)) == _MARK


def _cipher(passphrase: str, salt: bytes) -> AESGCM:
    return AESGCM(Scrypt(salt=salt, length=32, n=1 << 15, r=8, p=1).derive(passphrase.encode()))


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])


def _chunks(file: BinaryIO, size: int) -> Iterator[tuple[int, bool, bytes]]:
    number, chunk = 0, file.read(size)
    while True:
        following = file.read(size)
        yield number, not following, chunk
        if not following:
            return
        number, chunk = number + 1, following
