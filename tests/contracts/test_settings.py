"""Every setting is in `.env.example`, with its default, and nothing else is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from batch_processor.settings import BatchProcessorSettings
from chassis.settings import InvalidSettings, Settings, load, variable
from emailer.settings import EmailSettings
from gateway.settings import GatewaySettings
from native.ports import OFFSET, VARIABLES
from native.settings import COMMAND_VARIABLES
from stock_data.settings import StockDataSettings
from upkeep import backups

EXAMPLE = Path(__file__).parents[2] / ".env.example"
COMPOSE = EXAMPLE.with_name("compose.yaml")
MODELS: tuple[type[Settings], ...] = (
    Settings,
    GatewaySettings,
    StockDataSettings,
    EmailSettings,
    BatchProcessorSettings,
)
# Read by a program, and no setting: by whom it is set instead.
OF_OTHERS = {
    **dict.fromkeys(("PATH", "PYTHONPATH", "TMPDIR", "SSL_CERT_FILE"), "the machine"),
    **dict.fromkeys(("LOAD", "NEW_SECRET"), "an argument of one command"),
    "POSTGRES_USER": "the image of PostgreSQL",
    "TICKWIRE_BOUNCE_CONF": "the mail server that submits bounces",
    "TICKWIRE_SERVICE": "our images",
}
_LINE = re.compile(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)

_READ = re.compile(
    r"""(?:environ|environment|variables|_variables\(\))(?:\.get\(|\[)f?["']([A-Z][A-Z0-9_]+)["']"""
    r"|\$\{([A-Z][A-Z0-9_]*):?[-+?=]"
)


def known() -> dict[str, object]:
    return {variable(m, n, f): f.get_default() for m in MODELS for n, f in m.model_fields.items()}


def test_the_example_names_every_variable_once() -> None:
    names = [name for name, _ in _LINE.findall(EXAMPLE.read_text())]
    native = {*VARIABLES.values(), OFFSET}
    # The last one is of compose itself.
    compose = {*re.findall(r"\$\{([A-Z_]+)[:}]", COMPOSE.read_text()), "COMPOSE_PROFILES"}
    assert len(names) == len(set(names))
    commands = {*backups.VARIABLES, *COMMAND_VARIABLES}
    assert set(names) == set(known()) | native | compose | commands


def test_every_variable_that_a_program_reads_is_in_the_example() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "deploy", "compose.yaml", "services/*/src/*.py"],
        cwd=EXAMPLE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    texts = ((EXAMPLE.parent / name).read_text() for name in tracked.stdout.splitlines())
    read = {one or other for text in texts for one, other in _READ.findall(text)}
    assert read - {name for name, _ in _LINE.findall(EXAMPLE.read_text())} == OF_OTHERS.keys()


def test_the_example_gives_the_defaults() -> None:
    given = dict(_LINE.findall(EXAMPLE.read_text()))
    for name, default in known().items():
        if isinstance(default, str | int | float) and not isinstance(default, bool):
            assert given[name] == str(default), name


@pytest.mark.parametrize("model", MODELS)
def test_every_setting_says_what_it_is_and_gives_an_example(model: type[Settings]) -> None:
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name}"
        assert field.examples, f"{model.__name__}.{name}"


def test_a_missing_setting_is_named_with_an_example() -> None:
    with pytest.raises(InvalidSettings) as caught:
        load(Settings, {})
    assert "RABBITMQ_URL: is not set" in str(caught.value)
    assert "for example RABBITMQ_URL=amqp://" in str(caught.value)


def test_a_wrong_setting_is_named_and_its_value_is_not_repeated() -> None:
    environ = {"RABBITMQ_URL": "amqp://u:hidden@h/v", "POSTGRES_DSN": "x", "POSTGRES_POOL_SIZE": "s3cret"}
    with pytest.raises(InvalidSettings) as caught:
        load(Settings, environ)
    assert "POSTGRES_POOL_SIZE" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_secret_can_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text("postgresql://u:p@h/db\n")
    settings = load(Settings, {"RABBITMQ_URL": "amqp://h", "POSTGRES_DSN_FILE": str(file)})
    assert settings.postgres_dsn.get_secret_value() == "postgresql://u:p@h/db"


def test_a_secret_file_that_is_missing_is_named() -> None:
    with pytest.raises(InvalidSettings) as caught:
        load(Settings, {"RABBITMQ_URL": "amqp://h", "POSTGRES_DSN_FILE": "/nowhere/dsn"})
    assert "POSTGRES_DSN_FILE" in str(caught.value)
    assert "/nowhere/dsn" in str(caught.value)


def test_settings_cannot_be_changed() -> None:
    settings = load(Settings, {"RABBITMQ_URL": "amqp://h", "POSTGRES_DSN": "postgresql://h"})
    with pytest.raises(ValueError, match="frozen"):
        settings.log_level = "DEBUG"
