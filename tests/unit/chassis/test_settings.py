"""Addresses with passwords: refused where they would be cut, and known as secrets where they are valid."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from chassis import redaction
from chassis.redaction import KnownSecrets
from chassis.settings import InvalidSettings, Settings, load, load_or_exit, secrets, unknown

GOOD = {
    "RABBITMQ_URL": "amqp://gateway:p%40ssword@broker:5672/tickwire",
    "POSTGRES_DSN": "postgresql://gateway:letmein@one:5432,two:5433/gateway",
}


@pytest.mark.parametrize(
    "address",
    ["amqp://u:hun#ter2@h/v", "amqp://u:hun/ter2@h", "amqp://u:hun?ter2@h:1", "amqp://u:p@h:ter2", "ter2"],
)
@pytest.mark.parametrize("variable", ["RABBITMQ_URL", "POSTGRES_DSN"])
def test_an_address_that_would_be_cut_inside_its_password_is_refused_and_not_repeated(
    variable: str, address: str
) -> None:
    wrong = address.replace("amqp", "postgresql") if variable == "POSTGRES_DSN" else address
    with pytest.raises(InvalidSettings, match=f"{variable}: is not an address like") as refused:
        load(Settings, {**GOOD, variable: wrong})
    assert "ter2" not in str(refused.value)


@pytest.mark.parametrize("address", ["postgresql:///db?host=/run/postgresql", "postgres://u:p@[::1]:5432/db"])
def test_every_usual_form_of_an_address_is_taken(address: str) -> None:
    assert load(Settings, {**GOOD, "POSTGRES_DSN": address}).postgres_dsn.get_secret_value() == address


def test_the_passwords_in_addresses_are_secrets_as_they_are_written_and_as_they_are_meant() -> None:
    assert secrets(load(Settings, GOOD)) >= {"p%40ssword", "p@ssword", "letmein", GOOD["RABBITMQ_URL"]}


def test_a_process_that_was_started_with_a_secret_does_not_reveal_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KnownSecrets, "values", frozenset())
    monkeypatch.setattr(KnownSecrets, "pattern", None)
    for name, text in GOOD.items():
        monkeypatch.setenv(name, text)
    load_or_exit(Settings)
    assert redaction.text("wrong login letmein") == "wrong login [redacted]"


def test_a_secret_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidSettings, match="POSTGRES_DSN_FILE: is not text"):
        load(Settings, {"RABBITMQ_URL": "amqp://h", "POSTGRES_DSN_FILE": str(file)})


def test_an_empty_secret_file_is_a_setting_that_is_not_set(tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text("\n")
    with pytest.raises(InvalidSettings, match="POSTGRES_DSN: is not set"):
        load(Settings, {"RABBITMQ_URL": "amqp://h", "POSTGRES_DSN_FILE": str(file)})


def test_all_errors_are_reported_at_once(tmp_path: Path) -> None:
    wrong = {"RABBITMQ_URL": "http://h", "POSTGRES_DSN_FILE": str(tmp_path / "none"), "LOG_LEVEL": "LOUD"}
    with pytest.raises(InvalidSettings) as refused:
        load(Settings, wrong)
    lines = str(refused.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == [
        "POSTGRES_DSN_FILE",
        "RABBITMQ_URL",
        "LOG_LEVEL",
    ]


class OfAService(Settings):
    prefix = "GATEWAY_"

    port: int = Field(default=8080, description="a port", examples=["8080"])


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("GATEWAY_PROT", "GATEWAY_PORT"), ("GATEWAY_XYZ", None), ("POSTGRES_POOLSIZE", "POSTGRES_POOL_SIZE")],
)
def test_a_variable_that_is_no_setting_is_named_with_the_nearest_one(name: str, nearest: str | None) -> None:
    assert unknown([OfAService], {**GOOD, name: "1"}) == {name: nearest}


@pytest.mark.parametrize(
    "name", ["GATEWAY_PORT_FILE", "GATEWAY_SERVICE_HOST", "GATEWAY_PORT_8080_TCP_ADDR", "HOME", "LANG"]
)
def test_other_variables_are_not_errors(name: str) -> None:
    assert unknown([OfAService], {**GOOD, name: "1"}) == {}


def test_a_secret_is_read_again_from_its_file_and_the_new_one_is_redacted_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KnownSecrets, "values", frozenset())
    monkeypatch.setattr(KnownSecrets, "pattern", None)
    file = tmp_path / "dsn"
    file.write_text(GOOD["POSTGRES_DSN"])
    settings = load(Settings, {"RABBITMQ_URL": GOOD["RABBITMQ_URL"], "POSTGRES_DSN_FILE": str(file)})
    changed = GOOD["POSTGRES_DSN"].replace("letmein", "opensesame")
    file.write_text(f"{changed}\n")
    assert settings.current_secret("postgres_dsn") == changed
    assert settings.current_secret("rabbitmq_url") == GOOD["RABBITMQ_URL"]
    assert settings.postgres_dsn.get_secret_value() == GOOD["POSTGRES_DSN"]
    assert redaction.text("wrong login opensesame") == "wrong login [redacted]"
