"""Retry policies and the discovery of operations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from batch_processor import operations
from batch_processor.operation import RetryPolicy
from batch_processor.operations.echo import OPERATION as ECHO
from contracts.scopes import Scope


def test_the_delay_grows_up_to_its_limit_and_ends_with_the_attempts() -> None:
    policy = RetryPolicy(max_attempts=5, first_s=1, factor=10, most_s=50)
    assert [policy.delay_s(attempt) for attempt in range(1, 6)] == [1, 10, 50, 50, None]


def test_the_built_in_operations_are_found_with_their_schemas() -> None:
    found = operations.discover()
    assert {"echo", "email.send", "stock.indicators"} <= set(found)
    assert found["echo"].item_schema == {}
    assert "symbol" in found["stock.indicators"].item_schema["required"]
    assert "from" in found["email.send"].item_schema["properties"]


@pytest.mark.parametrize(
    ("leads_to", "complaint"),
    [
        (
            "batch_processor.operations.echo:OPERATION",
            "an operation named 'echo': the two names",
        ),
        ("batch_processor.operations:discover", "which is not made by @operation"),
        ("absent_words.words:words", "No module named 'absent_words'.*pip uninstall"),
        ("batch_processor.operations.echo:missing", "cannot be imported from"),
    ],
)
def test_an_entry_point_that_leads_elsewhere_ends_the_start(
    leads_to: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = EntryPoint("not-echo", leads_to, operations.GROUP)
    monkeypatch.setattr(operations, "installed", lambda: {"not-echo": wrong})
    with pytest.raises(operations.InvalidOperation, match=f"'not-echo'.*{complaint}"):
        operations.discover()


def test_a_service_that_cannot_use_an_operation_ends_with_the_reason_before_the_trace_back(
    tmp_path: Path,
) -> None:
    package = tmp_path / "broken-0.1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 0.1\n")
    (package / "entry_points.txt").write_text(f"[{operations.GROUP}]\nbad = broken.module:bad\n")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "RABBITMQ_URL": "amqp://x",
        "POSTGRES_DSN": "postgresql://x",
        "LOG_FORMAT": "json",
    }
    command = [sys.executable, "-m", "batch_processor"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    [line] = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 1
    assert json.loads(line)["event"] == "an operation cannot be used"
    reason, trace_back = line.index("pip uninstall broken"), line.index("Traceback")
    assert reason < trace_back


def test_an_operation_that_two_packages_have_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        package = tmp_path / f"words{number}-0.1.dist-info"
        package.mkdir()
        (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: words{number}\nVersion: 0.1\n")
        (package / "entry_points.txt").write_text(f"[{operations.GROUP}]\nwords = words{number}:words\n")
    monkeypatch.syspath_prepend(tmp_path)
    operations.installed.cache_clear()
    with pytest.raises(operations.InvalidOperation, match=r"words1 and words2 .*'words'|words2 and words1"):
        operations.discover()


def test_an_operation_that_is_not_installed_is_refused_with_those_that_are() -> None:
    with pytest.raises(operations.InvalidOperation, match=r"'absent' is installed; there are .*echo"):
        operations.load("absent")


def test_an_operation_needs_the_scope_of_the_route_that_has_the_same_effect() -> None:
    found = operations.discover()
    assert found["email.send"].required_scopes == {Scope.EMAILS_SEND}
    assert found["stock.indicators"].required_scopes == {Scope.QUOTES_READ}
    assert found["database.backup"].required_scopes == {Scope.ADMIN}
    assert found["echo"].required_scopes == set()


@pytest.mark.parametrize("name", ["", "Upper", "a b", "x" * 101, "ä", "a\n"])
def test_an_operation_that_no_caller_could_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="the name of an operation is"):
        replace(ECHO, name=name)


def test_a_scope_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"'jobs:write'; the scopes are admin, .*quotes:read"):
        replace(ECHO, required_scopes=frozenset({"jobs:write"}))  # type: ignore[arg-type]
