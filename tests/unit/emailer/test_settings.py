"""Wrong settings stop the service with a sentence that names them."""

from __future__ import annotations

import pytest

from chassis.settings import InvalidSettings, load
from emailer.settings import EmailSettings

NEEDED = {"RABBITMQ_URL": "amqp://localhost/", "POSTGRES_DSN": "postgresql://localhost/emailer"}


def test_two_variables_are_enough() -> None:
    settings = load(EmailSettings, NEEDED)
    assert (settings.port, settings.smtp_tls, settings.on_ambiguous) == (8082, "opportunistic", "retry")


def test_every_setting_is_described_with_an_example() -> None:
    for name, field in EmailSettings.model_fields.items():
        assert field.description, name
        assert field.examples, name


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EMAIL_SMTP_TLS", "perhaps"),
        ("EMAIL_SMTP_PORT", "70000"),
        ("EMAIL_RETRY_SCALE", "0"),
        ("EMAIL_ON_AMBIGUOUS", "x"),
    ],
)
def test_a_wrong_value_is_named(variable: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=variable):
        load(EmailSettings, NEEDED | {variable: value})
