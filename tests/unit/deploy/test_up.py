"""The steps of `make up`, with a stand-in for docker: ports are checked before anything is built."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from containers import published
from native import settings
from native.errors import SettingError
from native.ports import HOST, free_ports

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
DOCKER = """\
#!/bin/sh
case "$*" in
    "compose config --services") echo gateway mailpit postgres ;;
    "compose port gateway 8080") [ -z "$RUNNING" ] || echo "127.0.0.1:$RUNNING" ;;
    "compose port "*) exit 1 ;;
    "compose ps --status running --quiet") [ -z "$RUNNING" ] || echo 0123abcd ;;
    *) echo "docker $* $GATEWAY_PORT $MAILPIT_PORT" >>"$CALLS" ;;
esac
"""
STEP = """\
#!/bin/sh
echo "$(basename "$0")" >>"$CALLS"
"""


def up(folder: Path, **variables: str) -> tuple[int, str, list[str]]:
    """Return exit code, errors and steps of `up` in a copy of its folder whose other scripts only record."""
    scripts = folder / "deploy/containers"
    scripts.mkdir(parents=True)
    shutil.copytree(DEPLOY / "native", folder / "deploy/native")
    for name in ("up", "__init__.py", "published.py"):
        shutil.copy(DEPLOY / "containers" / name, scripts)
    for name in (".env.example", "compose.yaml"):
        shutil.copy(DEPLOY.with_name(name), folder)
    for script, text in (
        *((scripts / name, STEP) for name in ("check", "replace", "card")),
        (folder / "docker", DOCKER),
    ):
        script.write_text(text)
        script.chmod(0o755)
    calls = folder / "calls"
    calls.touch()
    usual = {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls), "RUNNING": ""}
    done = subprocess.run(
        [scripts / "up"], env={**usual, **variables}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr, calls.read_text().splitlines()


def test_settings_are_checked_after_the_build_and_before_anything_is_replaced(tmp_path: Path) -> None:
    gateway, mailbox = map(str, free_ports(2))
    code, said, steps = up(tmp_path, GATEWAY_PORT=gateway, MAILPIT_PORT=mailbox)
    assert (code, said) == (0, "")
    ports = f"{gateway} {mailbox}"
    assert steps == [
        f"docker compose build {ports}",
        "check",
        "replace",
        f"docker compose up --wait {ports}",
        "card",
    ]


def test_servers_may_read_their_files_also_in_a_clone_that_was_made_for_its_owner_alone(
    tmp_path: Path,
) -> None:
    rules = tmp_path / "deploy/prometheus/rules"
    rules.mkdir(parents=True)
    (rules / "causes.yml").touch(mode=0o600)
    rules.chmod(0o700)
    own = tmp_path / "deploy/notes"
    own.touch(mode=0o600)
    gateway, mailbox = map(str, free_ports(2))
    assert up(tmp_path, GATEWAY_PORT=gateway, MAILPIT_PORT=mailbox)[:2] == (0, "")
    modes = [file.stat().st_mode & 0o777 for file in (rules, rules / "causes.yml", own)]
    assert modes == [0o755, 0o644, 0o600]


def test_every_busy_port_is_named_before_anything_is_built(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as one, socket.create_server((HOST, 0)) as two:
        gateway, mailbox = (str(other.getsockname()[1]) for other in (one, two))
        code, said, steps = up(tmp_path, GATEWAY_PORT=gateway, MAILPIT_PORT=mailbox)
    assert (code, steps) == (2, [])
    assert f"Port {gateway} for gateway is taken" in said
    assert f"Port {mailbox} for mailpit is taken" in said
    assert "make up MAILPIT_PORT=" in said
    assert "make up PORT_OFFSET=10000" in said


def test_a_misspelled_setting_of_compose_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    gateway, mailbox = map(str, free_ports(2))
    # A setting of a service is named by the check of that service.
    given = {"GATEWAY_PORT": gateway, "MAILPIT_PORT": mailbox, "GRAFANA_PROT": "1", "EMAIL_SMTP_PROT": "1"}
    code, said, steps = up(tmp_path, **given)
    assert (code, len(steps)) == (0, 5)
    assert said == "unknown setting, ignored: GRAFANA_PROT; did you mean GRAFANA_PORT?\n"


def test_a_port_of_the_stack_itself_is_not_busy(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as own:
        gateway = str(own.getsockname()[1])
        code, said, steps = up(
            tmp_path, GATEWAY_PORT=gateway, MAILPIT_PORT=str(free_ports(1)[0]), RUNNING=gateway
        )
    assert (code, said, len(steps)) == (0, "", 8)


def test_beside_a_stack_that_runs_images_are_built_one_after_the_other(tmp_path: Path) -> None:
    gateway, mailbox = map(str, free_ports(2))
    _, _, steps = up(tmp_path, GATEWAY_PORT=gateway, MAILPIT_PORT=mailbox, RUNNING=gateway)
    services = ("gateway", "stock-data", "email", "batch-processor")
    assert steps[:5] == [*(f"docker compose build {one} {gateway} {mailbox}" for one in services), "check"]


def test_an_offset_moves_the_published_ports_that_no_variable_sets(tmp_path: Path) -> None:
    (own,) = free_ports(1)
    _, said, steps = up(tmp_path, PORT_OFFSET="5000", MAILPIT_PORT=str(own))
    assert (said, steps[0]) == ("", f"docker compose build 13080 {own}")


def test_a_port_in_the_file_stays_and_an_offset_in_it_moves_the_others(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("GATEWAY_PORT=9000\nPORT_OFFSET=10\n")
    moved = {"MAILPIT_PORT": 8035, "GRAFANA_PORT": 3010, "TLS_PORT": 8453}
    assert published.moved(settings.given({}, dotenv)) == moved
    assert published.moved(settings.given({"PORT_OFFSET": "0"}, dotenv)) == {}


def test_ports_that_the_file_sets_are_those_of_scripts_that_do_not_read_it(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("GATEWAY_PORT=9000\nMAILPIT_PORT=\n")
    assert published.chosen(settings.given({}, dotenv)) == {"GATEWAY_PORT": 9000}
    assert published.chosen(settings.given({"GATEWAY_PORT": "9001"}, dotenv)) == {"GATEWAY_PORT": 9001}


def test_an_offset_that_is_no_number_is_refused_with_an_example() -> None:
    with pytest.raises(SettingError, match=r"PORT_OFFSET is 'far'.*PORT_OFFSET=10000"):
        published.moved({"PORT_OFFSET": "far"})


def test_a_port_that_is_no_number_is_refused_with_an_example() -> None:
    with pytest.raises(SettingError, match=r"GRAFANA_PORT is 'eighty'.*GRAFANA_PORT=3000"):
        published.check({"GRAFANA_PORT": "eighty"}, ["grafana"], own=(), command="make up")
