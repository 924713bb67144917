"""Sealed backups open with their passphrase, whole and unchanged, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from upkeep import sealing
from upkeep.errors import UpkeepError

PASSPHRASE = "a passphrase of the tests"
CHUNK = 1 << 20


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_an_encrypted_file_is_decrypted_to_its_content(tmp_path: Path, size: int) -> None:
    clear, sealed, opened = tmp_path / "clear", tmp_path / "sealed", tmp_path / "opened"
    clear.write_bytes(b"\x07secret" * (size // 7) + b"x" * (size % 7))
    sealing.seal(clear, sealed, PASSPHRASE)
    assert sealing.is_sealed(sealed)
    assert not sealing.is_sealed(clear)
    assert b"secret" not in sealed.read_bytes()
    sealing.open_sealed(sealed, opened, PASSPHRASE)
    assert opened.read_bytes() == clear.read_bytes()


def _parts(sealed: Path) -> tuple[bytes, list[bytes]]:
    data = sealed.read_bytes()
    head, rest = data[:34], data[34:]
    step = CHUNK + 16
    return head, [rest[at : at + step] for at in range(0, len(rest), step)]


@pytest.mark.parametrize("harm", ["cut", "swapped", "changed", "repeated", "another passphrase"])
def test_a_changed_file_does_not_open(tmp_path: Path, harm: str) -> None:
    clear, sealed = tmp_path / "clear", tmp_path / "sealed"
    clear.write_bytes(b"a" * CHUNK + b"b" * CHUNK + b"c" * CHUNK)
    sealing.seal(clear, sealed, PASSPHRASE)
    head, (first, second, third) = _parts(sealed)
    harmed = {
        "cut": [first, second],
        "swapped": [second, first, third],
        "changed": [first[:-1] + bytes([first[-1] ^ 1]), second, third],
        "repeated": [first, first, second, third],
        "another passphrase": [first, second, third],
    }[harm]
    sealed.write_bytes(head + b"".join(harmed))
    word = PASSPHRASE if harm != "another passphrase" else "another passphrase"
    with pytest.raises(UpkeepError, match="cannot be decrypted"):
        sealing.open_sealed(sealed, tmp_path / "opened", word)


def test_a_short_passphrase_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clear").touch()
    with pytest.raises(UpkeepError, match="16 characters"):
        sealing.seal(tmp_path / "clear", tmp_path / "sealed", "short")
