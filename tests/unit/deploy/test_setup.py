"""What the setup tells users who may not install or write, and the packages for authors of operations."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from containers import narrow

REPOSITORY = Path(__file__).resolve().parents[3]
SETUP = REPOSITORY / "deploy/native/setup.sh"
# For root every folder can be written.
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups") if os.geteuid() == 0 else ()


@contextmanager
def clone_of_nobody(programs: tuple[str, ...] = ()) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield a folder with the setup, and an environment in which of all programs only these are there."""
    with TemporaryDirectory() as name:
        clone, found = Path(name) / "clone", Path(name) / "programs"
        (clone / "deploy/native").mkdir(parents=True)
        shutil.copy(SETUP, clone / "deploy/native")
        (clone / "requirements.lock").touch()
        found.mkdir()
        for program in programs:
            (found / program).symlink_to(shutil.which(program) or "/bin/true")
        Path(name).chmod(0o755)
        yield clone, {"PATH": str(found) if programs else os.environ["PATH"]}


@pytest.mark.parametrize(
    ("others", "command"),
    [
        ((), "su -c 'deploy/native/setup.sh --servers --test'"),
        (("sudo",), "sudo deploy/native/setup.sh --servers --test"),
    ],
)
def test_a_user_without_rights_is_told_the_one_command_that_installs_what_is_missing(
    others: tuple[str, ...], command: str
) -> None:
    needed = ("sh", "setpriv", "dirname", "id", "cat", "apt-get")
    with clone_of_nobody((*needed, *others)) as (clone, environment):
        done = subprocess.run(
            [*AS_NOBODY, "sh", "deploy/native/setup.sh", "--test"],
            cwd=clone,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert f"\n    {command}\n" in done.stderr
    # Their daemons would have the ports of Tickwire's own servers.
    assert "keeps their daemons off" in done.stderr
    assert {"memcached", "prometheus"} <= set(done.stderr.split())


def test_where_all_servers_are_there_their_installation_touches_nothing() -> None:
    with clone_of_nobody() as (clone, environment):
        words = [*AS_NOBODY, "sh", "deploy/native/setup.sh", "--servers"]
        done = subprocess.run(words, cwd=clone, env=environment, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert {file.name for file in clone.iterdir()} == {"deploy", "requirements.lock"}


def test_a_second_installation_waits_for_the_first() -> None:
    with clone_of_nobody() as (clone, environment), (clone / "deploy/native/setup.sh").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        words = ["sh", "deploy/native/setup.sh", "--servers"]
        with subprocess.Popen(words, cwd=clone, env=environment, stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "Waiting for another installation in this folder\n"
            assert second.poll() is None
            fcntl.flock(held, fcntl.LOCK_UN)
            assert second.wait(60) == 0


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out() -> None:
    with clone_of_nobody() as (clone, environment):
        clone.chmod(0o555)
        words = [*AS_NOBODY, "sh", "deploy/native/setup.sh", "--packages"]
        done = subprocess.run(
            words, cwd=clone, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        clone.chmod(0o755)
    assert done.returncode == 1
    first, second = done.stderr.strip().splitlines()
    assert f"cannot write to {clone}" in first
    assert second.startswith("Next: clone Tickwire into a folder that this user may write to")
    assert "Errno" not in done.stderr + done.stdout


def test_the_packages_for_an_operation_are_those_of_its_template_and_of_batch_processor_alone() -> None:
    [roots] = re.findall(r"^of_operations='([^']+)'", SETUP.read_text(), re.MULTILINE)
    lock = narrow.read((REPOSITORY / "requirements-dev.lock").read_text())
    installed = {pin.name for pin in narrow.needed(lock, roots.split())}
    template = tomllib.loads((REPOSITORY / "docs/templates/operation/pyproject.toml").read_text())
    needed = {*template["build-system"]["requires"], *template["project"]["optional-dependencies"]["test"]}
    assert needed <= installed
    assert set(template["project"]["dependencies"]) <= set(roots.split())
    # Neither the gateway's nor those of linters, browsers and load tests.
    assert installed.isdisjoint({"quart", "mypy", "schemathesis", "celery"})
