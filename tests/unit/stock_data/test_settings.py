"""Settings of stock-data."""

from __future__ import annotations

from datetime import date
from typing import get_args

import pytest
from pydantic import SecretStr

from chassis.settings import InvalidSettings, load
from stock_data.settings import StockDataSettings

NEEDED = {
    "RABBITMQ_URL": "amqp://stock-data:secret@127.0.0.1:5672/tickwire",
    "POSTGRES_DSN": "postgresql://stock_data:secret@127.0.0.1:5432/stock_data",
}
ALPACA = {
    "STOCK_DATA_PROVIDERS": "alpaca, embedded",
    "STOCK_DATA_ALPACA_KEY_ID": "PK1",
    "STOCK_DATA_ALPACA_SECRET_KEY": "s3cret",
}


def test_the_defaults_need_no_key_and_no_network() -> None:
    settings = load(StockDataSettings, NEEDED)
    assert (settings.host, settings.port) == ("127.0.0.1", 8081)
    assert settings.providers == ("embedded",)
    assert settings.replays


def test_providers_are_listed_in_their_order() -> None:
    assert load(StockDataSettings, NEEDED | ALPACA).providers == ("alpaca", "embedded")


def test_made_up_ticks_do_not_overlay_a_real_upstream_unless_asked_for() -> None:
    assert not load(StockDataSettings, NEEDED | ALPACA).replays
    assert load(StockDataSettings, NEEDED | ALPACA | {"STOCK_DATA_REPLAY_ENABLED": "true"}).replays
    assert not load(StockDataSettings, NEEDED | {"STOCK_DATA_REPLAY_ENABLED": "false"}).replays


@pytest.mark.parametrize("missing", ["STOCK_DATA_ALPACA_KEY_ID", "STOCK_DATA_ALPACA_SECRET_KEY"])
def test_alpaca_needs_its_credentials(missing: str) -> None:
    values = {name: value for name, value in (NEEDED | ALPACA).items() if name != missing}
    with pytest.raises(InvalidSettings, match=missing) as caught:
        load(StockDataSettings, values)
    assert "s3cret" not in str(caught.value)


def test_credentials_are_not_shown() -> None:
    assert "s3cret" not in repr(load(StockDataSettings, NEEDED | ALPACA))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STOCK_DATA_PROVIDERS", "yahoo"),
        ("STOCK_DATA_PROVIDERS", ""),
        ("STOCK_DATA_REPLAY_SPEED", "0"),
        ("STOCK_DATA_REPLAY_TICKS_PER_S", "-1"),
        ("STOCK_DATA_REPLAY_START_DAY", "yesterday"),
        ("STOCK_DATA_REPLAY_START_DAY", "0"),
        ("STOCK_DATA_ALPACA_URL", "data.alpaca.markets"),
        ("STOCK_DATA_PORT", "http"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=name):
        load(StockDataSettings, NEEDED | {name: value})


def test_the_replay_can_be_tuned() -> None:
    chosen = {"STOCK_DATA_REPLAY_SPEED": "1", "STOCK_DATA_REPLAY_TICKS_PER_S": "20"}
    settings = load(StockDataSettings, NEEDED | chosen | {"STOCK_DATA_REPLAY_START_DAY": "2000-03-01"})
    assert (settings.replay_speed, settings.replay_ticks_per_s) == (1, 20)
    assert settings.replay_start_day == date(2000, 3, 1)


def test_every_setting_is_explained_with_an_example() -> None:
    for name, field in StockDataSettings.model_fields.items():
        assert field.description, name
        assert field.examples, name


def test_every_credential_of_a_provider_is_checked_when_it_is_missing() -> None:
    fields = StockDataSettings.model_fields
    found = {name: field for name, field in fields.items() if SecretStr in get_args(field.annotation)}
    assert "alpaca_secret_key" in found
    assert [name for name, field in found.items() if not field.validate_default] == []
