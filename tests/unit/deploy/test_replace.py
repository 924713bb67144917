"""Services in containers are replaced one after the other, with a stand-in for docker."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

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
    *"$BROKEN") exit 1 ;;
esac
"""


def replaced(
    folder: Path, running: str, *, broken: str = "nothing", unchanged: str = "", dry_run: int = 0
) -> tuple[int, list[str]]:
    """Return the exit code, and the services that were replaced, in their order."""
    program = folder / "docker"
    program.write_text(DOCKER)
    program.chmod(0o755)
    calls = folder / "calls"
    given = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "RUNNING": running,
        "BROKEN": broken,
        "UNCHANGED": unchanged,
        "DRY_RUN": str(dry_run),
    }
    done = subprocess.run([REPOSITORY / "deploy/containers/replace"], env=given, check=False)
    ups = [line for line in calls.read_text().splitlines() if " ps " not in line and "--dry-run" not in line]
    # Without its dependencies a service looks changed, and is replaced once more by the next `up`.
    assert all(up.startswith("compose up --detach --wait --no-build ") for up in ups)
    return done.returncode, [up.split()[-1] for up in ups]


def test_services_that_receive_are_replaced_before_those_that_send(tmp_path: Path) -> None:
    running = "gateway gateway-2 email stock-data batch-processor postgres"
    code, services = replaced(tmp_path, running)
    assert (code, services) == (0, ["stock-data", "email", "batch-processor", "gateway", "gateway-2"])


def test_no_service_is_replaced_where_none_runs(tmp_path: Path) -> None:
    assert replaced(tmp_path, "") == (0, [])


def test_the_others_stay_when_one_does_not_become_healthy(tmp_path: Path) -> None:
    code, services = replaced(tmp_path, "stock-data email gateway", broken=" email")
    assert (code, services) == (1, ["stock-data", "email"])


def test_a_service_that_compose_would_leave_as_it_is_is_not_replaced(tmp_path: Path) -> None:
    running = "gateway gateway-2 email stock-data"
    code, services = replaced(tmp_path, running, unchanged="gateway email")
    assert (code, services) == (0, ["stock-data", "gateway-2"])


def test_every_service_is_replaced_where_compose_cannot_tell_beforehand(tmp_path: Path) -> None:
    code, services = replaced(tmp_path, "email gateway", unchanged="email gateway", dry_run=1)
    assert (code, services) == (0, ["email", "gateway"])
