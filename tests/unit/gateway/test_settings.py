"""The gateway's settings: what is wrong is named before anything starts."""

from __future__ import annotations

import pytest

from chassis.settings import InvalidSettings, load
from gateway.identity import keys
from gateway.settings import GatewaySettings

BARE = {
    "RABBITMQ_URL": "amqp://localhost",
    "POSTGRES_DSN": "postgresql://localhost",
    "GATEWAY_KEY_PEPPER": "x" * 16,
}


def test_three_variables_are_enough() -> None:
    settings = load(GatewaySettings, BARE)
    assert (settings.port, settings.ops_port, settings.bootstrap_key) == (8080, 8090, None)


def test_an_empty_bootstrap_key_is_none() -> None:
    assert load(GatewaySettings, {**BARE, "GATEWAY_BOOTSTRAP_KEY": ""}).bootstrap_key is None


def test_a_bootstrap_key_that_is_none_is_named_and_not_shown() -> None:
    with pytest.raises(InvalidSettings, match="GATEWAY_BOOTSTRAP_KEY") as refused:
        load(GatewaySettings, {**BARE, "GATEWAY_BOOTSTRAP_KEY": "tw_live_my_secret"})
    assert "my_secret" not in str(refused.value)


def test_secrets_are_not_in_the_text_of_the_settings() -> None:
    key = keys.new_key()
    settings = load(GatewaySettings, {**BARE, "GATEWAY_BOOTSTRAP_KEY": str(key)})
    assert key.secret not in repr(settings)
    assert "x" * 16 not in repr(settings)


def test_a_short_pepper_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="GATEWAY_KEY_PEPPER"):
        load(GatewaySettings, {**BARE, "GATEWAY_KEY_PEPPER": "short"})
