"""Services in containers are replaced one after the other, with a stand-in for docker."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
DOCKER = """\
#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
    *" ps "*) for service in $RUNNING; do echo "$service tickwire-$service-1"; done ;;
    *--dry-run*)
        for service in $RUNNING; do
            case " $UNCHANGED " in *" $service "*) done=Running ;; *) done=Recreate ;; esac
            echo " DRY-RUN MODE -  Container tickwire-$service-1  $done" >&2
        done
        exit "$DRY_RUN" ;;
    inspect*rabbitmq*) echo "$STARTED" ;;
    *"config rabbitmq"*) echo "        source: $SECRETS/rabbitmq" ;;
    *"$BROKEN") exit 1 ;;
esac
"""


def call(folder: Path, running: str, **variables: str) -> tuple[int, list[str]]:
    """Return the exit code, and how docker was called."""
    program = folder / "docker"
    program.write_text(DOCKER)
    program.chmod(0o755)
    calls = folder / "calls"
    usual = {"BROKEN": "nothing", "UNCHANGED": "", "DRY_RUN": "0"}
    path = f"{folder}:{os.environ['PATH']}"
    given = {"PATH": path, "CALLS": str(calls), "RUNNING": running, **usual, **variables}
    done = subprocess.run([REPOSITORY / "deploy/containers/replace"], env=given, check=False)
    return done.returncode, calls.read_text().splitlines()


def replaced(folder: Path, running: str, **variables: str) -> tuple[int, list[str]]:
    """Return the exit code, and the services that were replaced, in their order."""
    code, calls = call(folder, running, **variables)
    ups = [line for line in calls if " ps " not in line and "--dry-run" not in line]
    # Without its dependencies a service looks changed, and is replaced once more by the next `up`.
    assert all(up.startswith("compose up --detach --wait --no-build ") for up in ups)
    return code, [up.split()[-1] for up in ups]


@pytest.mark.parametrize(
    ("started", "is_newer"), [("2020-01-02T03:04:05.678Z", True), ("2036-01-02T03:04:05.678Z", False)]
)
def test_a_running_broker_imports_newer_definitions_before_anything_is_replaced(
    tmp_path: Path, started: str, is_newer: bool
) -> None:
    (tmp_path / "rabbitmq").mkdir()
    (tmp_path / "rabbitmq/rabbitmq-definitions.json").touch()
    calls = call(tmp_path, "rabbitmq email", STARTED=started, SECRETS=str(tmp_path))[1]
    changes = [
        words for words in calls if not any(asked in words for asked in (" ps ", "--dry-run", "config"))
    ]
    imported = "compose exec -T rabbitmq rabbitmqctl --quiet import_definitions"
    assert changes[0].startswith("inspect ")
    assert changes[1:-1] == ([f"{imported} /run/secrets/rabbitmq-definitions.json"] if is_newer else [])
    assert changes[-1].endswith(" email")


def test_services_that_receive_are_replaced_before_those_that_send(tmp_path: Path) -> None:
    running = "gateway gateway-2 email stock-data batch-processor postgres"
    code, services = replaced(tmp_path, running)
    assert (code, services) == (0, ["stock-data", "email", "batch-processor", "gateway", "gateway-2"])


def test_no_service_is_replaced_where_none_runs(tmp_path: Path) -> None:
    assert replaced(tmp_path, "") == (0, [])


def test_the_others_stay_when_one_does_not_become_healthy(tmp_path: Path) -> None:
    code, services = replaced(tmp_path, "stock-data email gateway", BROKEN=" email")
    assert (code, services) == (1, ["stock-data", "email"])


def test_a_service_that_compose_would_leave_as_it_is_is_not_replaced(tmp_path: Path) -> None:
    running = "gateway gateway-2 email stock-data"
    code, services = replaced(tmp_path, running, UNCHANGED="gateway email")
    assert (code, services) == (0, ["stock-data", "gateway-2"])


def test_every_service_is_replaced_where_compose_cannot_tell_beforehand(tmp_path: Path) -> None:
    code, services = replaced(tmp_path, "email gateway", UNCHANGED="email gateway", DRY_RUN="1")
    assert (code, services) == (0, ["email", "gateway"])
