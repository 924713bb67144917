"""Reading `.env`, and the settings that are passed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from native import settings
from native.errors import SettingError
from native.settings import NativeSettings

FILE = Path(".env")


def test_a_dotenv_line_is_read_with_comments_quotes_and_export() -> None:
    text = """
    # a comment
    PLAIN=value  # said why
    EMPTY=
    export EXPORTED = yes
    SINGLE='a # b'
    DOUBLE="a = b" # quoted
    URL=http://host/#part
    """
    assert settings.parse(text, FILE) == {
        "PLAIN": "value",
        "EMPTY": "",
        "EXPORTED": "yes",
        "SINGLE": "a # b",
        "DOUBLE": "a = b",
        "URL": "http://host/#part",
    }


@pytest.mark.parametrize("line", ["no assignment", "1X=2", "=x"])
def test_a_line_that_is_no_assignment_is_refused_with_its_place(line: str) -> None:
    with pytest.raises(SettingError, match=r"\.env, line 2") as refused:
        settings.parse(f"A=1\n{line}\n", FILE)
    assert line not in str(refused.value)


def test_all_lines_that_are_no_assignments_are_named_at_once() -> None:
    with pytest.raises(SettingError) as refused:
        settings.parse("one\nA=1\nB='x\n", FILE)
    assert [line.partition(" is ")[0].partition(":")[0] for line in str(refused.value).splitlines()] == [
        ".env, line 1",
        ".env, line 3",
    ]


@pytest.mark.parametrize("line", ["A='x", 'A="x" y'])
def test_an_open_quote_is_refused(line: str) -> None:
    with pytest.raises(SettingError, match="quote"):
        settings.parse(line, FILE)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_bytes(b"\xef\xbb\xbfGATEWAY_PORT=9001\r\n")
    assert settings.given({}, dotenv) == {"GATEWAY_PORT": "9001"}


def test_a_file_that_is_no_text_is_refused_with_the_place(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_bytes("A=1\nEMAIL_DEFAULT_SENDER=Jürgen <j@tickwire.example>\n".encode("latin-1"))
    with pytest.raises(SettingError, match=r"\.env, line 2 is not text in UTF-8"):
        settings.given({}, dotenv)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("GATEWAY_PORT=9001\nLOG_LEVEL=DEBUG\n")
    loaded = NativeSettings.load({"GATEWAY_PORT": "9002"}, dotenv)
    assert loaded.ports.gateway == 9002
    assert loaded.variables["LOG_LEVEL"] == "DEBUG"


def test_the_passphrase_of_backups_is_not_handed_on(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("BACKUP_KEY=a long passphrase\nBACKUP_KEEP=3\n")
    assert NativeSettings.load({"HOME": "/h"}, dotenv).variables == {"HOME": "/h", "BACKUP_KEEP": "3"}


def test_addresses_of_other_servers_are_not_handed_on(tmp_path: Path) -> None:
    loaded = NativeSettings.load(
        {"POSTGRES_DSN": "postgresql://elsewhere/x", "HOME": "/h"}, tmp_path / ".env"
    )
    assert loaded.variables == {"HOME": "/h"}
