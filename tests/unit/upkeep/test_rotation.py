"""Secrets that variables set are not rotated, with a stand-in for docker."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest

from containers import make_secrets
from native.directories import RunDirectory
from native.settings import NativeSettings
from upkeep import rotation
from upkeep.__main__ import keys_reset
from upkeep.compose_stack import ComposeStack
from upkeep.errors import UpkeepError
from upkeep.native_stack import NativeStack

DOCKER = """\
#!/bin/sh
case "$*" in
    *" ps "*) echo 0123 ;;
    *" config "*) echo "$CONFIG" ;;
    *" restart "* | *" up "*) echo "$*" >>"$CALLS" ;;
    *) exit 1 ;;
esac
"""


def stack(folder: Path, **variables: str | None) -> ComposeStack:
    """Return a stack whose job that makes secrets has these variables."""
    program = folder / "docker"
    program.write_text(DOCKER)
    program.chmod(0o755)
    make_secrets.make(folder / "secrets", folder / "api-key", {})
    environment = {"PATH": f"{folder}:{os.environ['PATH']}"}
    environment["CALLS"] = str(folder / "calls")
    environment["CONFIG"] = json.dumps({"services": {"secrets": {"environment": variables}}})
    return ComposeStack(folder, folder / "secrets", environment)


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("email-secrets-key", "EMAIL_PREVIOUS_SECRETS_KEY"),
        ("pepper", "GATEWAY_PREVIOUS_KEY_PEPPER"),
        ("api-key", "GATEWAY_BOOTSTRAP_KEY"),
        ("email-secrets-key", "EMAIL_SECRETS_KEY"),
        ("pepper", "GATEWAY_KEY_PEPPER"),
        ("smtp-password", "EMAIL_SMTP_PASSWORD"),
        ("alpaca-secret-key", "STOCK_DATA_ALPACA_SECRET_KEY"),
    ],
)
def test_a_secret_that_the_next_start_would_bring_back_is_not_rotated(
    tmp_path: Path, name: str, variable: str
) -> None:
    found = stack(tmp_path, **{variable: "by hand"})
    before = {file: file.read_text() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(UpkeepError, match=f"^{variable} is set in .env"):
        rotation.rotate(found, name, new="new", finish=False, say=print)
    assert {file: file.read_text() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("name", "service"), [("smtp-password", "email"), ("alpaca-secret-key", "stock-data")]
)
def test_a_secret_that_somebody_else_sets_reaches_its_service(
    tmp_path: Path, name: str, service: str
) -> None:
    found = stack(tmp_path)
    with pytest.raises(UpkeepError, match=f"NEW_SECRET=… make rotate SECRET={name}"):
        rotation.rotate(found, name, new=None, finish=False, say=print)
    rotation.rotate(found, name, new="a new one", finish=False, say=print)
    assert found.secret(name) == "a new one"
    assert (tmp_path / "secrets" / service / name).read_text() == "a new one"
    assert f"restart {service}\n" in (tmp_path / "calls").read_text()


def test_a_file_of_the_users_own_is_not_rotated(tmp_path: Path) -> None:
    variable = "STOCK_DATA_ALPACA_SECRET_KEY_FILE"
    own = NativeStack(RunDirectory.at(tmp_path), NativeSettings(variables={variable: str(tmp_path / "own")}))
    assert own.set_by_hand("alpaca-secret-key") == variable
    assert own.set_by_hand("postgres-emailer") is None


def test_a_key_that_the_next_start_would_replace_is_not_made(tmp_path: Path) -> None:
    found = stack(tmp_path, GATEWAY_BOOTSTRAP_KEY="by hand")
    with pytest.raises(UpkeepError, match=r"^GATEWAY_BOOTSTRAP_KEY is set in \.env"):
        keys_reset(found, argparse.Namespace(revoke_others=False))


def test_a_variable_that_is_not_set_holds_no_secret(tmp_path: Path) -> None:
    found = stack(tmp_path, GATEWAY_KEY_PEPPER=None, EMAIL_SMTP_PASSWORD="")
    assert [found.set_by_hand(name) for name in ("pepper", "smtp-password", "postgres-emailer")] == [None] * 3
