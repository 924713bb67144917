"""Secrets of webhooks are encrypted with the pepper, and survive its rotation."""

from __future__ import annotations

import base64

import pytest

from gateway.webhooks.secret_safe import SecretSafe, UnreadableSecret, shown

OLD, NEW = "the old pepper of the tests", "the new pepper of the tests"


def test_a_secret_has_32_random_bytes_and_is_shown_as_the_standard_writes_it() -> None:
    safe = SecretSafe(NEW)
    first, second = safe.new(), safe.new()
    secret = safe.open(first.content, first.sealed_with)
    assert len(secret) == 32
    assert secret != safe.open(second.content, second.sealed_with)
    assert shown(secret) == "whsec_" + base64.b64encode(secret).decode()


def test_a_secret_of_the_previous_pepper_is_read_and_one_of_another_is_not() -> None:
    sealed = SecretSafe(OLD).seal(b"secret")
    assert SecretSafe(NEW, OLD).open(sealed.content, sealed.sealed_with) == b"secret"
    with pytest.raises(UnreadableSecret, match="is not configured"):
        SecretSafe(NEW).open(sealed.content, sealed.sealed_with)


def test_a_secret_that_was_changed_is_not_read() -> None:
    safe = SecretSafe(NEW)
    sealed = safe.seal(b"secret")
    with pytest.raises(UnreadableSecret, match="was changed"):
        safe.open(sealed.content[:-4] + b"AAA=", sealed.sealed_with)
