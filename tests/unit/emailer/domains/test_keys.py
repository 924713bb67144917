"""Private keys are sealed, can be read after a rotation of the secret, and are never shown."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from emailer.domains import keys
from emailer.domains.keys import KeySafe
from emailer.errors import UnreadableKey
from emailer.mails.stored_mail import Signer

AT = datetime(2026, 11, 27, tzinfo=UTC)
OLD, NEW = "the secret of yesterday", "the secret of today"


def test_a_sealed_key_is_read_with_the_same_secret_only() -> None:
    sealed = KeySafe(OLD).seal(b"private")
    assert b"private" not in sealed
    assert KeySafe(OLD).open(sealed) == b"private"
    with pytest.raises(UnreadableKey, match="EMAIL_SECRETS_KEY"):
        KeySafe(NEW).open(sealed)
    with pytest.raises(UnreadableKey):
        KeySafe(OLD).open(sealed[:-1] + b"A")


def test_a_rotated_secret_reads_the_old_keys_and_seals_them_anew() -> None:
    sealed = KeySafe(OLD).seal(b"private")
    both = KeySafe(NEW, OLD)
    renewed = both.renewed(sealed)
    assert renewed is not None
    assert both.renewed(renewed) is None
    assert KeySafe(NEW).open(renewed) == b"private"


def test_keys_have_selectors_of_their_own_and_records_of_their_kind() -> None:
    safe = KeySafe(NEW)
    rsa, ed25519 = keys.make(safe, "rsa", at=AT), keys.make(safe, "ed25519", at=AT)
    assert rsa.selector != keys.make(safe, "ed25519", at=AT).selector != ed25519.selector
    assert rsa.selector.startswith("tw20261127")
    assert rsa.public_record.startswith("v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A")
    assert len(ed25519.public_record) == len("v=DKIM1; k=ed25519; p=") + 44


def test_no_private_part_of_a_key_is_shown() -> None:
    made = keys.make(KeySafe(NEW), "ed25519", at=AT)
    signer = Signer("acme.example", made.selector, "ed25519", KeySafe(NEW).open(made.sealed))
    assert "sealed" not in repr(made)
    assert "private" not in repr(signer)
