"""The agent that makes the backups which tasks ask for, with a stand-in for docker and its containers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from upkeep import agent
from upkeep.backups import BackupOptions
from upkeep.compose_stack import ComposeStack

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
# `psql` writes down each statement. It is asked for a backup as long as `wanted` exists.
DOCKER = """\
#!/bin/sh
psql() {
    [ -e "$FOLDER/server-is-up" ] || { echo "no server" >&2; exit 2; }
    while IFS= read -r line; do
        echo "$line" >>"$FOLDER/statements"
        case $line in
            '\\echo '*) echo '-- end of the answer' ;;
            *EXISTS*) if [ -e "$FOLDER/wanted" ]; then echo t; else echo f; fi ;;
            *RETURNING*) rm "$FOLDER/wanted"; echo 0123 ;;
            'SET lock_timeout'*) eval "$AT_FIRST_STATEMENT" ;;
        esac
    done
}
case "$*" in
    *" psql "*) psql ;;
    *" ps "*) echo 0123 ;;
esac
"""


def environment(folder: Path, at_first_statement: str = "") -> dict[str, str]:
    """Return an environment in which PostgreSQL's containers do this when a backup begins."""
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    (folder / "wanted").touch()
    (folder / "server-is-up").touch()
    path = f"{folder}:{os.environ['PATH']}"
    return {"PATH": path, "FOLDER": str(folder), "AT_FIRST_STATEMENT": at_first_statement}


def statements(folder: Path, word: str) -> list[str]:
    """Return the statements that have the word."""
    return [line for line in (folder / "statements").read_text().splitlines() if word in line]


def serve_waiting(folder: Path, at_first_statement: str) -> list[str]:
    """Let the agent look for a request once; return what it says."""
    said: list[str] = []
    stack = ComposeStack(folder, folder / "secrets", environment(folder, at_first_statement))
    options = BackupOptions(folder / "backups", passphrase=None, keep=1)
    agent.serve_waiting(stack, options, say=said.append)
    return said


def test_a_failure_is_noted_with_its_reason_before_the_lock_is_released(tmp_path: Path) -> None:
    [said] = serve_waiting(tmp_path, 'echo "the disk isn\'t there" >&2; exit 3')
    assert said == "the backup failed: PostgreSQL rejected a statement: the disk isn't there"
    [noted] = statements(tmp_path, "SET ended_at")
    assert "error = 'PostgreSQL rejected a statement: the disk isn''t there' WHERE id = '0123'" in noted
    lines = statements(tmp_path, "")
    assert lines.index("SELECT pg_advisory_lock(84252);") < lines.index(noted)
    assert lines.index(noted) < lines.index("SELECT pg_advisory_unlock(84252);")
    assert list((tmp_path / "backups").iterdir()) == []


def test_a_backup_that_does_not_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "LONGEST_S", 1)
    [said] = serve_waiting(tmp_path, "sleep 60")
    assert said == "the backup failed: The backup was not complete after 1 s."
    assert len(statements(tmp_path, "error = 'The backup was not complete after 1 s.'")) == 1


def test_the_agent_takes_nothing_without_a_request(tmp_path: Path) -> None:
    made = environment(tmp_path)
    (tmp_path / "wanted").unlink()
    options = BackupOptions(tmp_path / "backups", passphrase=None, keep=1)
    agent.serve_waiting(ComposeStack(tmp_path, tmp_path, made), options, say=print)
    assert statements(tmp_path, "advisory_lock") == []
    assert not (tmp_path / "backups").exists()


def test_the_agent_of_containers_waits_for_postgresql_and_then_serves_until_it_is_stopped(
    tmp_path: Path,
) -> None:
    chosen = {"BACKUP_FOLDER": str(tmp_path / "backups"), "BACKUP_KEEP": "1", "PYTHONPATH": str(DEPLOY)}
    made = {**environment(tmp_path), **chosen, "TICKWIRE_SECRETS": str(tmp_path / "secrets")}
    (tmp_path / "server-is-up").unlink()
    command = [sys.executable, "-m", "upkeep", "--way", "compose", "backup-agent"]
    with subprocess.Popen(command, env=made, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            lines = (line.partition(" ")[2] for line in process.stdout)
            assert next(lines).startswith("cannot look for requests")
            (tmp_path / "server-is-up").touch()
            assert next(lines) == "waiting for requests\n"
            file = tmp_path / "backups" / next(line for line in lines if ".tar: " in line).split(":")[0]
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
    assert len(statements(tmp_path, f"file = '{file.name}', bytes = {file.stat().st_size}")) == 1
    with tarfile.open(file) as archive:
        assert {"manifest.json", "batch_processor.dump", "secrets.json"} <= set(archive.getnames())


@pytest.mark.parametrize("keep", ["0", "-1", "many"])
def test_a_number_of_backups_that_would_keep_none_is_refused(tmp_path: Path, keep: str) -> None:
    made = {**environment(tmp_path), "BACKUP_KEEP": keep, "PYTHONPATH": str(DEPLOY)}
    command = [sys.executable, "-m", "upkeep", "--way", "compose", "backup-agent", "--once"]
    done = subprocess.run(command, env=made, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"BACKUP_KEEP is '{keep}'" in done.stderr
