"""The commands that query a stack inside its containers, run as on a host that has no Python packages."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from support.deployment.composed import REPOSITORY, SERVICES

PROGRAM = REPOSITORY / "deploy/containers/upkeep"


def call(*words: str, environment: Mapping[str, str]) -> tuple[int, str]:
    """Return the exit code and the output of the program."""
    done = subprocess.run(
        [str(PROGRAM), *words],
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout


def bundle(way: str, folder: Path, *, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the files of a new support bundle by name."""
    code, said = call("support-bundle", way, environment={**environment, "SUPPORT_FOLDER": str(folder)})
    assert code == 0, said
    file = Path(said.splitlines()[-1])
    assert file.stat().st_mode & 0o077 == 0
    with tarfile.open(file) as found:
        parts = {one.name.partition("/")[2]: found.extractfile(one) for one in found.getmembers()}
        return {name: part.read().decode() for name, part in parts.items() if part}


def check_helps(texts: Mapping[str, str]) -> None:
    """Assert that a bundle of a stack that runs well has what helps."""
    assert all(service in texts["processes.txt"] for service in SERVICES)
    for service in SERVICES:
        found = json.loads(texts[f"{service}.json"])
        assert found["readiness"].startswith("200 "), found["readiness"]
        assert found["database"]["postgresql"][0].isdigit()
        assert found["database"]["tables"]
        assert found["settings"]["RABBITMQ_URL"] == {
            "value": "[redacted]",
            "from": "the file /run/secrets/rabbitmq-url",
        }
        assert any(line.startswith("tickwire_queue_ready_messages") for line in found["metrics"])
        assert "asyncpg" in found["versions"]["packages"]
        assert "does not run" not in texts[f"errors/{service}.log"]
