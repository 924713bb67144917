"""Wrong settings stop the service with a sentence that names them."""

from __future__ import annotations

import pytest

from chassis.settings import InvalidSettings, load, variable
from emailer.resources import relays_of
from emailer.settings import EmailSettings

NEEDED = {"RABBITMQ_URL": "amqp://localhost/", "POSTGRES_DSN": "postgresql://localhost/emailer"}


def test_two_variables_are_enough() -> None:
    settings = load(EmailSettings, NEEDED)
    assert (settings.port, settings.smtp_tls, settings.on_ambiguous) == (8082, "opportunistic", "retry")


def test_a_relay_has_a_minute_for_a_command_and_ten_for_the_final_dot_unless_it_is_set() -> None:
    [usual] = relays_of(load(EmailSettings, NEEDED))
    assert (usual.timeout_s, usual.dot_timeout_s) == (60, 600)
    [patient] = relays_of(load(EmailSettings, NEEDED | {"EMAIL_SMTP_TIMEOUT_S": "90"}))
    assert (patient.timeout_s, patient.dot_timeout_s) == (90, 600)


def test_every_setting_is_described_with_an_example() -> None:
    for name, field in EmailSettings.model_fields.items():
        assert field.description, name
        assert field.examples, name


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EMAIL_SMTP_TLS", "perhaps"),
        ("EMAIL_DEFAULT_SENDER", "Tickwire"),
        ("EMAIL_SMTP_PORT", "70000"),
        ("EMAIL_RETRY_SCALE", "0"),
        ("EMAIL_EXPIRES_AFTER_S", "1e9"),
        ("EMAIL_ON_AMBIGUOUS", "x"),
        ("EMAIL_REPLY_RULES", '[{"name": "a", "codes": ["550"], "then": "deliver"}]'),
    ],
)
def test_a_wrong_value_is_named(variable: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=variable):
        load(EmailSettings, NEEDED | {variable: value})


@pytest.mark.parametrize(
    "name", [name for name, field in EmailSettings.model_fields.items() if field.annotation is float]
)
def test_no_time_is_longer_than_a_date_can_be(name: str) -> None:
    named = variable(EmailSettings, name, EmailSettings.model_fields[name])
    for value in ("inf", "nan", "1e12"):
        with pytest.raises(InvalidSettings, match=named):
            load(EmailSettings, NEEDED | {named: value})
