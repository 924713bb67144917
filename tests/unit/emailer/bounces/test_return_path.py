"""Return paths name their recipient, and nobody else can make one."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emailer.bounces.return_path import ReturnPath
from emailer.resources import return_path_of
from emailer.settings import EmailSettings

MAIL = UUID("01999999-9999-7999-8999-999999999999")
SENDER = "orders@acme.example"
SIGNED = ReturnPath("bounces.example.com", (b"k" * 32,))


@given(st.uuids(), st.integers(0, 32_767))
def test_a_return_path_comes_back_whatever_case_it_is_written_in(mail: UUID, position: int) -> None:
    address = SIGNED.address(mail, position, sender=SENDER)
    local, _, domain = address.partition("@")
    assert (domain, local.startswith("b+"), len(local) <= 64) == ("bounces.example.com", True, True)
    assert SIGNED.read(address) == SIGNED.read(address.upper()) == (mail, position)


@given(st.integers(2, 56), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_a_return_path_with_another_character_anywhere_is_refused(place: int, char: str) -> None:
    address = SIGNED.address(MAIL, 3, sender=SENDER)
    changed = address[:place] + char + address[place + 1 :]
    # The last character has three bits that mean nothing.
    assert SIGNED.read(changed) in (None, (MAIL, 3))
    assert (SIGNED.read(changed) is None) == (changed != address) or place == 56


@pytest.mark.parametrize(
    "address",
    [
        *("", "b+@x.example", "orders@acme.example", "b+" + "a" * 55 + "@x.example"),
        # The Kelvin sign, which is a k to patterns that ignore the case of all Unicode letters.
        "b+" + "\u212a" * 55 + "@x.example",
    ],
)
def test_an_unsigned_address_is_no_return_path(address: str) -> None:
    assert SIGNED.read(address) is None


@given(st.text(max_size=300))
def test_any_text_is_read_without_an_error(address: str) -> None:
    assert SIGNED.read(address) is None


def test_a_key_that_was_rotated_is_valid_as_long_as_it_is_kept() -> None:
    old = SIGNED.address(MAIL, 0, sender=SENDER)
    rotated = ReturnPath("other.example.com", (b"n" * 32, b"k" * 32))
    assert rotated.read(old) == (MAIL, 0)
    assert SIGNED.read(rotated.address(MAIL, 0, sender=SENDER)) is None
    assert ReturnPath("other.example.com", (b"n" * 32,)).read(old) is None


def test_a_host_of_the_senders_domain_stands_in_place_of_the_common_one() -> None:
    host = "bounces.acme.example"
    address = SIGNED.address(MAIL, 3, sender=SENDER, host=host)
    assert address.endswith(f"@{host}")
    assert SIGNED.read(address) == (MAIL, 3)
    assert ReturnPath(None, (b"k" * 32,)).address(MAIL, 3, sender=SENDER, host=host) == address
    assert ReturnPath().address(MAIL, 3, sender=SENDER, host=host) == SENDER


def test_without_a_domain_or_a_key_a_mail_keeps_its_sender() -> None:
    assert ReturnPath().address(MAIL, 0, sender=SENDER) == SENDER
    assert ReturnPath("bounces.example.com").address(MAIL, 0, sender=SENDER) == SENDER
    assert ReturnPath().read(SIGNED.address(MAIL, 0, sender=SENDER)) is None


def test_the_settings_give_domain_and_keys() -> None:
    base = {"rabbitmq_url": "amqp://x", "postgres_dsn": "postgresql://x"}
    keys = {"secrets_key": "s" * 64, "previous_secrets_key": "p" * 64}
    found = return_path_of(EmailSettings.model_validate({**base, **keys, "bounce_domain": "b.example"}))
    assert (found.domain, len(found.keys), len({*found.keys, b"s" * 64})) == ("b.example", 2, 3)
    with pytest.raises(ValueError, match="EMAIL_SECRETS_KEY"):
        EmailSettings.model_validate({**base, "bounce_domain": "b.example"})
