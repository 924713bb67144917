"""The gateway's settings: an error is named before anything starts."""

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


def test_an_empty_bootstrap_key_counts_as_not_configured() -> None:
    assert load(GatewaySettings, {**BARE, "GATEWAY_BOOTSTRAP_KEY": ""}).bootstrap_key is None


def test_an_invalid_bootstrap_key_is_named_and_not_shown() -> None:
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_CORS_ORIGINS", "*"),
        ("GATEWAY_OIDC_ISSUER", "http://id.example.com"),
        ("GATEWAY_OIDC_JWKS_URL", "http://id.example.com/keys"),
        ("GATEWAY_OIDC_AUDIENCE", ""),
        ("GATEWAY_OIDC_ALGORITHMS", "RS256,HS256"),
        ("GATEWAY_OIDC_ALGORITHMS", "none"),
        ("GATEWAY_OIDC_ALGORITHMS", ""),
        ("GATEWAY_OIDC_USERS", "everybody"),
        ("GATEWAY_OIDC_SCOPE_RULES", "groups[ops]=everything"),
    ],
)
def test_a_setting_that_would_let_strangers_in_is_named_at_the_start(name: str, value: str) -> None:
    good = {"GATEWAY_OIDC_ISSUER": "https://id.example.com", "GATEWAY_OIDC_AUDIENCE": "api"}
    assert load(GatewaySettings, {**BARE, **good}).oidc_audience == "api"
    with pytest.raises(InvalidSettings, match=name):
        load(GatewaySettings, {**BARE, **good, name: value})


def test_an_audience_without_an_issuer_is_a_mistake() -> None:
    with pytest.raises(InvalidSettings, match="GATEWAY_OIDC_AUDIENCE"):
        load(GatewaySettings, {**BARE, "GATEWAY_OIDC_AUDIENCE": "api"})
