"""The whole runner with small stand-ins for the services: start, use, crash, start again, stop."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import psutil
import pytest

from native import leftovers, stack
from native import runner as native_runner
from native.directories import RunDirectory
from native.ports import HOST, VARIABLES, Ports
from native.postgres import PostgresServer
from native.services import SERVICES

DEPLOY = str(Path(__file__).resolve().parents[3] / "deploy")
STAND_IN = """
import http.server, os, sys

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

port = int(os.environ["{variable}"])
print("listening on", port, flush=True)
http.server.HTTPServer(("127.0.0.1", port), Ready).serve_forever()
"""
SETTINGS = """
from pydantic import Field

from chassis.settings import Settings

class StandIn(Settings):
    prefix = "{prefix}"
    host: str = Field(default="127.0.0.1", description="an address", examples=["127.0.0.1"])
    port: int = Field(default=1, description="a port", examples=["1"])
    ops_port: int = Field(default=1, description="a port", examples=["1"])
    most: int = Field(default=1, ge=1, description="a number", examples=["5"])
"""


@dataclass
class Runner:
    """`python -m native run` in a directory of its own, on ports of its own."""

    directory: Path
    packages: Path
    ports: Ports = field(default_factory=Ports.free)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.directory)

    def command(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        ports = {VARIABLES[name]: str(number) for name, number in self.ports.numbered().items()}
        environment = os.environ | ports | {"PYTHONPATH": f"{DEPLOY}:{self.packages}"} | variables
        process = subprocess.Popen(
            [sys.executable, "-m", "native", "--run-dir", str(self.directory), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def start(self) -> subprocess.Popen[str]:
        process = self.command("run")
        deadline = time.monotonic() + 60
        while not self.run.ready.exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return process

    def ask(self, *arguments: str, **variables: str) -> tuple[int, str]:
        process = self.command(*arguments, **variables)
        output = process.communicate(timeout=60)[0]
        return process.returncode, output


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    folder = tmp_path / "packages"
    for service in SERVICES:
        package = folder / service.package
        package.mkdir(parents=True)
        variable = "GATEWAY_OPS_PORT" if service.name == "gateway" else f"{service.prefix}_PORT"
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(STAND_IN.replace("{variable}", variable))
        (package / "settings.py").write_text(SETTINGS.replace("{prefix}", f"{service.prefix}_"))
    return folder


@pytest.fixture
async def runner(tmp_path: Path, packages: Path) -> AsyncIterator[Runner]:
    made = Runner(tmp_path / ".run", packages)
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()
    await leftovers.stop(made.directory, patience_s=0)
    made.ask("reset")


def ids(runner: Runner) -> dict[str, int]:
    lines = [line.split() for line in runner.ask("status")[1].splitlines()[1:]]
    return {name: int(pid) if pid.isdigit() else 0 for name, _, _, pid, *_ in lines}


async def test_a_runner_recovers_from_a_crash_of_a_service_and_is_cleaned_up_after_its_own(
    runner: Runner,
) -> None:
    """One story, as a start costs seconds: crash of a service, SIGKILL, start, SIGTERM, start, stop."""
    process = runner.start()
    assert runner.run.api_key.read_text().startswith("tw_live_")
    assert native_runner.ports(runner.run) == runner.ports
    code, output = runner.ask("run")
    assert (code, f"already runs from {runner.directory} (process {process.pid})" in output) == (1, True)

    first = ids(runner)["email"]
    psutil.Process(first).kill()
    _until(lambda: ids(runner)["email"] not in (first, 0))
    await _write(runner)

    process.kill()
    output = process.communicate(timeout=60)[0]
    assert "Tickwire is ready" in output
    assert "ended    email" in output
    # What the killed runner left behind would end the wait below too early.
    runner.run.ready.unlink()
    process = runner.start()
    await _read(runner)

    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert leftovers.find(runner.directory) == []
    assert not runner.run.ready.exists()

    process = runner.start()
    await _read(runner)
    assert runner.ask("stop") == (0, "Stopped.\n")
    assert process.wait(timeout=5) == 0
    assert runner.ask("status")[0] == 1
    assert native_runner.ports(runner.run) is None


def test_a_stop_during_the_start_leaves_nothing(runner: Runner) -> None:
    process = runner.command("run")
    _until(lambda: len(leftovers.find(runner.directory)) > 6)
    process.terminate()
    process.communicate(timeout=60)
    assert leftovers.find(runner.directory) == []
    assert not runner.run.ready.exists()


def test_a_taken_port_is_named_before_anything_starts(runner: Runner) -> None:
    with socket.create_server((HOST, runner.ports.prometheus)):
        code, output = runner.ask("run")
    assert code == 1
    assert f"Port {runner.ports.prometheus} for prometheus is taken by" in output
    assert "make run NATIVE_PROMETHEUS_PORT=" in output
    assert list(runner.run.logs.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(runner: Runner, tmp_path: Path) -> None:
    runner.directory = tmp_path / "file" / ".run"
    runner.directory.parent.touch()
    code, output = runner.ask("run")
    assert code == 1
    assert output.strip().startswith(f"Not a directory ({runner.directory}")
    assert "make run NATIVE_RUN_DIR=" in output
    assert "Errno" not in output


def test_all_wrong_settings_of_all_services_are_named_before_anything_starts(runner: Runner) -> None:
    wrong = {"GATEWAY_MOST": "0", "EMAIL_MOST": "many", "LOG_LEVEL": "LOUD", "STOCK_DATA_MOTS": "3"}
    wrong |= {"GATEWAY_PORT": "eighty", "NATIVE_MAILBOX_HTTP_PORT": "0", "NATIVE_PROMETEUS_PORT": "1"}
    code, output = runner.ask("run", **wrong)
    assert code == 2
    for name in ("GATEWAY_MOST", "EMAIL_MOST", "LOG_LEVEL"):
        assert output.count(f"{name}: ") == 1
    for name in ("GATEWAY_PORT", "NATIVE_MAILBOX_HTTP_PORT"):
        assert output.count(f"{name} is ") == 1
    assert "unknown: STOCK_DATA_MOTS; did you mean STOCK_DATA_MOST?" in output
    assert "unknown: NATIVE_PROMETEUS_PORT; did you mean NATIVE_PROMETHEUS_PORT?" in output
    assert list(runner.run.logs.iterdir()) == []


def test_a_service_that_cannot_start_is_named_with_its_last_words(runner: Runner, packages: Path) -> None:
    (packages / "emailer" / "__main__.py").write_text("raise SystemExit('EMAIL_SMTP_HOST is missing')")
    code, output = runner.ask("run")
    assert code == 1
    for expected in ("email ended with exit code 1", "EMAIL_SMTP_HOST is missing", "/readyz", "email.log"):
        assert expected in output
    assert leftovers.find(runner.directory) == []


async def test_a_stack_for_tests_runs_on_free_ports_and_leaves_nothing(
    tmp_path: Path, packages: Path
) -> None:
    directory = tmp_path / "stack"
    variables = {"PYTHONPATH": str(packages)}
    async with stack.start(
        directory, services=["email"], without=["prometheus"], variables=variables
    ) as live:
        assert set(live.pids) == {"epmd", "rabbitmq", "postgres", "memcached", "mailbox", "email"}
        first = live.pids["email"]
        live.kill("email")
        async with asyncio.timeout(10):
            while live.pids["email"] == first:
                await asyncio.sleep(0.05)
        await live.restart("email")
        assert "listening on" in live.log("email")
        name, ports = await live.add_replica("email")
        assert name == f"email-{ports.email}"
        assert ports.email != live.ports.email
    assert leftovers.find(directory) == []


async def _write(runner: Runner) -> None:
    connection = await asyncpg.connect(PostgresServer(runner.run, runner.ports).dsn("gateway"))
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    await connection.close()


async def _read(runner: Runner) -> None:
    connection = await asyncpg.connect(PostgresServer(runner.run, runner.ports).dsn("gateway"))
    assert await connection.fetchval("SELECT answer FROM kept") == 42
    await connection.close()


def _until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
