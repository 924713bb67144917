"""The targets of the Makefile where nothing was started yet, with a stand-in for docker."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
OF_THE_NATIVE_RUN = ("stop", "status", "footprint", "reset")
OF_EVERY_WAY = ("demo", "login", "keys-reset", "rotate", "backup", "backup-agent", "restore")
INSIDE_CONTAINERS = ("support-bundle", "upgrade-check")
SETUP = """\
#!/bin/sh
echo "setup $*"
mkdir -p .venv/bin
echo '#!/bin/sh' >.venv/bin/python
chmod +x .venv/bin/python
"""


def make(folder: Path, *words: str, containers: str = "", docker_code: int = 0) -> tuple[int, list[str]]:
    """Call make in a folder that has no virtual environment; return exit code and output."""
    (folder / "deploy/native").mkdir(parents=True, exist_ok=True)
    (folder / "deploy/containers").mkdir(parents=True, exist_ok=True)
    shutil.copy(REPOSITORY / "Makefile", folder)
    shutil.copy(REPOSITORY / "deploy/containers/upkeep", folder / "deploy/containers/upkeep")
    programs = {
        "docker": f"#!/bin/sh\nprintf '%s' '{containers}'\nexit {docker_code}\n",
        "deploy/native/setup.sh": SETUP,
        "deploy/containers/up": '#!/bin/sh\necho "profiles [${COMPOSE_PROFILES-those of the file}]"\n',
    }
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["make", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    said = done.stdout + done.stderr
    return done.returncode, [line for line in said.splitlines() if not line.startswith("make: ***")]


@pytest.mark.parametrize("target", [*OF_THE_NATIVE_RUN, *OF_EVERY_WAY])
def test_a_command_without_a_stack_says_so_in_one_line(tmp_path: Path, target: str) -> None:
    code, lines = make(tmp_path, target, docker_code=1)
    assert (code, lines) == (2, ["Nothing has been started here: make run, or make up."])


@pytest.mark.parametrize("target", INSIDE_CONTAINERS)
@pytest.mark.parametrize("docker_code", [0, 1])
def test_a_command_for_containers_says_in_one_line_that_there_are_none(
    tmp_path: Path, target: str, docker_code: int
) -> None:
    code, lines = make(tmp_path, target, docker_code=docker_code)
    assert code == 2
    assert [line.partition(":")[0] for line in lines] == ["No stack answers"]


@pytest.mark.parametrize("target", OF_EVERY_WAY)
def test_beside_containers_a_command_installs_packages_and_no_servers(tmp_path: Path, target: str) -> None:
    assert make(tmp_path, target, containers="0123abcd") == (0, ["setup --packages"])


@pytest.mark.parametrize("target", OF_EVERY_WAY)
def test_a_command_for_a_cluster_installs_packages_and_no_servers(tmp_path: Path, target: str) -> None:
    assert make(tmp_path, target, "WAY=kubernetes", docker_code=1) == (0, ["setup --packages"])


def test_the_tour_of_a_stack_that_is_named_installs_its_packages(tmp_path: Path) -> None:
    assert make(tmp_path, "demo", "ARGS=--url http://127.0.0.1:8080") == (0, ["setup --packages"])


@pytest.mark.parametrize(
    ("line", "words", "profiles"),
    [
        ("", (), "observability"),
        ("", ("COMPOSE_PROFILES=",), ""),
        ("COMPOSE_PROFILES=observability,tls\n", (), "those of the file"),
        ("COMPOSE_PROFILES=\n", (), "those of the file"),
        ("COMPOSE_PROFILES=observability,tls\n", ("COMPOSE_PROFILES=tls",), "tls"),
    ],
)
def test_metrics_are_on_unless_the_command_or_the_file_names_profiles(
    tmp_path: Path, line: str, words: tuple[str, ...], profiles: str
) -> None:
    (tmp_path / ".env").write_text(line)
    assert make(tmp_path, "up", *words) == (0, [f"profiles [{profiles}]"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("restore", "FILE=my backups/it's one.tar"), "<-m> <upkeep> <restore> <my backups/it's one.tar>"),
        (("restore",), "<-m> <upkeep> <restore>"),
        (("rotate", "SECRET=a;b"), "<-m> <upkeep> <rotate> <a;b>"),
    ],
)
def test_a_name_reaches_its_command_whatever_characters_it_has(
    tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    program = tmp_path / ".venv/bin/python"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nprintf '<%s> ' \"$@\"\necho\n")
    program.chmod(0o755)
    assert make(tmp_path, *words) == (0, [f"{told} "])


def test_every_long_test_is_run_by_one_of_the_targets() -> None:
    planned = subprocess.run(
        ["make", "-n", "test-long"], cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=True
    ).stdout.split()
    mark = "pytest.mark." + "long"
    marked = {
        file.relative_to(REPOSITORY)
        for file in (REPOSITORY / "tests").rglob("test_*.py")
        if mark in file.read_text(encoding="utf-8")
    }
    assert marked
    # Whole folders, or the files themselves.
    assert {
        file
        for file in marked
        if not {str(file), *map(str, file.parents)} & {word for word in planned if word.startswith("tests/")}
    } == set()
