"""Busy ports and wrong settings are reported before anything is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from native.directories import MARKER
from native.ports import HOST, VARIABLES, Ports
from native.settings import run_directory

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"


def before(folder: Path, ports: Ports, *, deploy: Path = DEPLOY, **variables: str) -> tuple[int, str]:
    named = {VARIABLES[name]: str(number) for name, number in ports.numbered().items()}
    done = subprocess.run(
        # Isolated from what is installed, as on a new machine.
        ["python3", "-S", "-m", "native.before"],
        env={**os.environ, **named, "PYTHONPATH": str(deploy), "NATIVE_RUN_DIR": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_busy_port_is_named_without_a_package_being_there(tmp_path: Path) -> None:
    ports = Ports.free()
    assert before(tmp_path, ports) == (0, "")
    with socket.create_server((HOST, ports.prometheus)):
        code, said = before(tmp_path, ports)
    assert code == 2
    assert f"Port {ports.prometheus} for prometheus is taken" in said
    assert "make run NATIVE_PROMETHEUS_PORT=" in said


def test_the_file_names_the_run_directory_of_every_command(tmp_path: Path) -> None:
    dotenv, elsewhere = tmp_path / ".env", tmp_path / "elsewhere"
    assert run_directory({}, dotenv) == tmp_path / ".run"
    dotenv.write_text(f"NATIVE_RUN_DIR={elsewhere}\n")
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    for words in (("native", "status"), ("native", "stop"), ("native", "footprint")):
        done = subprocess.run(
            [sys.executable, "-m", *words],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "deploy")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"Nothing runs from {elsewhere}" in done.stdout + done.stderr


def test_wrong_ports_are_named_here_only_until_the_runner_can_name_all_wrong_settings(tmp_path: Path) -> None:
    # In a checkout of its own: whether the packages are installed in this one says nothing.
    checkout = tmp_path / "deploy"
    shutil.copytree(DEPLOY / "native", checkout / "native")
    wrong = {"GATEWAY_PORT": "eighty", "EMAIL_PORT": "0"}
    code, said = before(tmp_path, Ports.free(), deploy=checkout, **wrong)
    assert code == 2
    assert "GATEWAY_PORT is 'eighty'" in said
    assert "EMAIL_PORT is '0'" in said
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch()
    assert before(tmp_path, Ports.free(), deploy=checkout, **wrong) == (0, "")


def test_ports_of_processes_that_outlived_a_killed_runner_are_no_obstacle(tmp_path: Path) -> None:
    ports = Ports.free()
    with socket.create_server((HOST, ports.prometheus)):
        leftover = subprocess.Popen(["sleep", "60"], env={**os.environ, MARKER: str(tmp_path)})
        try:
            assert before(tmp_path, ports) == (0, "")
        finally:
            leftover.kill()
            leftover.wait()
        assert before(tmp_path, ports)[0] == 2
