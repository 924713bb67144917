"""The folder of the native run: its secrets, and the environment of its servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from native.directories import MARKER, RunDirectory


def test_a_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    run = RunDirectory.at(tmp_path)
    assert run.secret("postgres-gateway") == RunDirectory.at(tmp_path).secret("postgres-gateway")
    assert (run.secrets / "postgres-gateway").stat().st_mode & 0o777 == 0o600
    assert run.secrets.stat().st_mode & 0o777 == 0o700


def test_a_server_starts_without_the_variables_of_the_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGDATA", "/elsewhere")
    monkeypatch.setenv("RABBITMQ_NODENAME", "rabbit@elsewhere")
    environment = RunDirectory.at(tmp_path).environment()
    assert environment[MARKER] == str(tmp_path)
    assert not {"PGDATA", "RABBITMQ_NODENAME"} & environment.keys()
