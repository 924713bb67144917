"""The steps of rotations, and that secrets of variables are not rotated, with a stand-in for docker."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from containers import make_secrets
from native.directories import RunDirectory
from native.settings import NativeSettings
from upkeep import rotation, turns
from upkeep.__main__ import keys_reset, rotate
from upkeep.commands import CommandLine
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


@dataclass(frozen=True)
class StackOfOneLogin(ComposeStack):
    """A server that accepts the password in its file; a rotation may be killed before it writes its own."""

    kills: list[str] = field(default_factory=list)

    @property
    def server(self) -> Path:
        return self.repository / "server"

    def put(self, secrets: Mapping[str, str]) -> None:
        if self.kills and self.kills[-1] in secrets:
            raise KeyboardInterrupt(self.kills.pop())
        super().put(secrets)

    def postgres(self, program: str, *arguments: str, database: str) -> CommandLine:
        # As on a native stack, with the password of the file.
        changing = f"""sed -n "s/.* PASSWORD '\\(.*\\)';/\\1/p" >{self.server}.new"""
        steps = (*self.login("postgres", self.secret("postgres-postgres")).words[2:], changing)
        done = f"mv {self.server}.new {self.server}"
        return CommandLine(("sh", "-c", " && ".join((*steps, done))), self.environment)

    def login(self, role: str, password: str) -> CommandLine:
        return CommandLine(("sh", "-c", f'test "$(cat {self.server})" = "{password}"'), self.environment)


@pytest.mark.parametrize("killed_at", ["postgres-postgres", "next-postgres-password", None])
def test_a_superuser_has_a_password_in_a_file_wherever_a_rotation_is_killed(
    tmp_path: Path, killed_at: str | None
) -> None:
    plain, name = stack(tmp_path), "postgres-postgres"
    found = StackOfOneLogin(plain.repository, plain.secrets, plain.environment)
    found.server.write_text(old := found.secret(name))
    if killed_at is not None:
        found.kills.append(killed_at)
        with pytest.raises(KeyboardInterrupt, match=killed_at):
            rotation.rotate(found, name, new=None, finish=False, say=print)
        is_changed = killed_at == name
        assert (found.server.read_text().strip() != old) == is_changed
    rotation.rotate(found, name, new=None, finish=False, say=print)
    assert found.server.read_text().strip() == found.secret(name) != old
    assert found.secret("next-postgres-password") == ""


def test_two_commands_do_not_change_secrets_at_once(tmp_path: Path) -> None:
    found = stack(tmp_path)
    options = argparse.Namespace(secret="smtp-password", finish=False, now=False, revoke_others=False)
    with turns.changing(found):
        for command in (rotate, keys_reset):
            with pytest.raises(UpkeepError, match="Another command changes this installation"):
                command(found, options)
    with turns.reading(found), pytest.raises(UpkeepError, match="or makes a backup of it"):
        rotate(found, options)
    with turns.reading(found), turns.reading(found):
        pass
    with pytest.raises(UpkeepError, match="NEW_SECRET"):
        rotate(found, options)


def test_a_key_that_the_next_start_would_replace_is_not_made(tmp_path: Path) -> None:
    found = stack(tmp_path, GATEWAY_BOOTSTRAP_KEY="by hand")
    with pytest.raises(UpkeepError, match=r"^GATEWAY_BOOTSTRAP_KEY is set in \.env"):
        keys_reset(found, argparse.Namespace(revoke_others=False))


def test_a_variable_that_is_not_set_holds_no_secret(tmp_path: Path) -> None:
    found = stack(tmp_path, GATEWAY_KEY_PEPPER=None, EMAIL_SMTP_PASSWORD="")
    assert [found.set_by_hand(name) for name in ("pepper", "smtp-password", "postgres-emailer")] == [None] * 3


GATEWAYS = ("gateway", "gateway-2")


@dataclass(frozen=True)
class RestartedPair(ComposeStack):
    """Two gateways that read the files when they restart; one that is not among `left` does not come back."""

    left: list[str] = field(default_factory=list)
    peppers: dict[str, tuple[str, str]] = field(default_factory=dict)
    states: list[tuple[tuple[str, str], ...]] = field(default_factory=list)

    def restart(self, service: str) -> None:
        assert service == "gateway"
        for one in GATEWAYS:
            if not self.left:
                raise UpkeepError(f"{one} is not ready")
            self.left.pop()
            self.start(one)

    def start(self, one: str) -> None:
        files = (self.secrets / f"gateway/gateway-{name}key-pepper" for name in ("", "previous-"))
        self.peppers[one] = tuple(file.read_text() for file in files)  # type: ignore[assignment]
        self.states.append(tuple(self.peppers.values()))

    def ask(self, path: str, *, key: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        return 200, {}

    def postgres(self, program: str, *arguments: str, database: str) -> CommandLine:
        # No webhook needs the old pepper; other statements come back as they are.
        return CommandLine(("sed", "s/^SELECT count.*/0/"), self.environment)


def pair(folder: Path) -> RestartedPair:
    """Return two gateways that have just started."""
    plain = stack(folder)
    found = RestartedPair(plain.repository, plain.secrets, plain.environment)
    for one in GATEWAYS:
        found.start(one)
    return found


def rotate_pepper(found: RestartedPair, *, restarts: int, finish: bool = False) -> list[str]:
    """Rotate the pepper while gateways come back from so many restarts; return what is said."""
    said: list[str] = []
    found.left[:] = ["may restart"] * restarts
    rotation.rotate(found, "pepper", new=None, finish=finish, say=said.append)
    assert found.left == []
    return said


def unknown(found: RestartedPair) -> list[tuple[tuple[str, str], ...]]:
    """Return the states in which a gateway hashed with a pepper that another one did not know."""
    return [state for state in found.states if any(now not in known for now, _ in state for known in state)]


@pytest.mark.parametrize("restarts", range(5))
def test_a_pepper_is_known_to_all_gateways_before_one_hashes_with_it_wherever_the_rotation_is_interrupted(
    tmp_path: Path, restarts: int
) -> None:
    found = pair(tmp_path)
    old, remaining = found.secret("pepper"), 4
    if restarts < 4:
        with pytest.raises(UpkeepError, match="is not ready"):
            rotate_pepper(found, restarts=restarts)
        with pytest.raises(UpkeepError, match=r"was interrupted: `make rotate SECRET=pepper` first"):
            rotate_pepper(found, restarts=2, finish=True)
        # A step that was not completed is repeated, with the same pepper.
        remaining = 4 if restarts < 2 else 2
    new = found.secret("next-pepper")
    rotate_pepper(found, restarts=remaining)
    assert unknown(found) == []
    assert new in ("", found.secret("pepper"))
    assert set(found.peppers.values()) == {(found.secret("pepper"), old)}
    assert old != found.secret("pepper")
    assert found.secret("next-pepper") == ""
    with pytest.raises(UpkeepError, match="being rotated already"):
        rotate_pepper(found, restarts=4)


def test_a_rotation_that_ended_between_two_files_begins_again_with_the_same_pepper(tmp_path: Path) -> None:
    found = pair(tmp_path)
    with pytest.raises(UpkeepError, match="is not ready"):
        rotate_pepper(found, restarts=2)
    new = found.secret("next-pepper")
    found.put({"pepper": found.secret("previous-pepper"), "previous-pepper": new})
    # The second step writes the present pepper into its new place first.
    found.put({"previous-pepper": found.secret("pepper")})
    found.start("gateway")
    rotate_pepper(found, restarts=4)
    assert unknown(found) == []
    assert found.secret("pepper") == new


def test_keys_that_were_used_only_before_a_rotation_had_ended_are_listed(tmp_path: Path) -> None:
    found = pair(tmp_path)
    rotate_pepper(found, restarts=4)
    for file, written in (("gateway-key-pepper", 1_700_000_000), ("gateway-next-key-pepper", 1_700_000_300)):
        os.utime(found.secrets / file, (written, written))
    asked = "\n".join(rotate_pepper(found, restarts=2, finish=True))
    assert f"last_used_at < '{datetime.fromtimestamp(1_700_000_300, UTC).isoformat()}'" in asked
    assert set(found.peppers.values()) == {(found.secret("pepper"), "")}
