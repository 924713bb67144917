"""A system that is not production sends only to listed recipients, however their addresses are written."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from emailer.sending.guard import RecipientGuard
from emailer.settings import EmailSettings


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("me@example.com", True),
        ("Me@Example.COM", True),
        ("you@example.com", False),
        ("anybody@example.org", True),
        ("anybody@team.example.org", False),
        ("anybody@example.net", True),
        ("me@example.com@evil.example", False),
        ("example.org@evil.example", False),
    ],
)
def test_only_listed_recipients_get_mail(address: str, is_allowed: bool) -> None:
    guard = RecipientGuard.read(" me@example.com, @example.org,example.net,")
    assert guard.allows(address) == is_allowed


def test_domains_beyond_ascii_are_listed_as_people_write_them() -> None:
    guard = RecipientGuard.read("Ann@EXÄMPLE.com, @müller.example, xn--exmple-cua.org")
    for allowed in ("ann@xn--exmple-cua.com", "jörg@müller.example", "bob@xn--mller-kva.example"):
        assert guard.allows(allowed)
    assert guard.allows("anybody@exämple.org")
    assert not guard.allows("bob@xn--exmple-cua.com")


@pytest.mark.parametrize("text", [None, "", " , "])
def test_without_a_list_everybody_may_get_mail(text: str | None) -> None:
    assert RecipientGuard.read(text).allows("anybody@example.com")


@pytest.mark.parametrize("text", ["me", "a b@example.com", "*@", "me@example.com; you@example.com"])
def test_an_invalid_list_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValidationError, match="must be an address"):
        EmailSettings.model_validate(
            {
                "rabbitmq_url": "amqp://a:b@127.0.0.1:5672/v",
                "postgres_dsn": "postgresql://a:b@127.0.0.1:5432/d",
                "allowed_recipients": text,
            }
        )
