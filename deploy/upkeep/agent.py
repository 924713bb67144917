"""The agent that makes the backups which tasks of `database.backup` ask for, with the rights of the operator.

batch-processor records a request in its database. The agent takes it, makes the backup as `make backup` does,
and records the outcome. Meanwhile it holds an advisory lock. If it dies, PostgreSQL releases the lock, and
batch-processor sees that this backup is abandoned.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from upkeep import backups, sealing
from upkeep.backups import AT_WORK, BackupOptions, Say
from upkeep.commands import Session
from upkeep.errors import NOTHING_RUNS, UpkeepError
from upkeep.installation import DATABASES, Installation, session

LONGEST_S = 4 * 3600
_LOOK_EVERY_S = 2.0
_CONNECT_AGAIN_AFTER_S = 5.0
_MOST_OF_AN_ERROR = 1000
_FAILURES = (UpkeepError, OSError, subprocess.SubprocessError)
_IS_WANTED = "SELECT EXISTS (SELECT FROM backup_requests WHERE ended_at IS NULL AND began_at IS NULL)"
_TAKE = "UPDATE backup_requests SET began_at = now() WHERE ended_at IS NULL AND began_at IS NULL RETURNING id"


def serve(installation: Installation, options: BackupOptions, *, say: Say) -> NoReturn:
    """Make requested backups until a signal; reconnect after PostgreSQL was away."""
    reason = ""
    while True:
        try:
            _serve_while_connected(installation, options, say)
        except _FAILURES as error:
            # Reported once in an outage, which is tried every five seconds.
            if str(error) != reason:
                say(f"cannot look for requests: {error}")
            reason = str(error)
        time.sleep(_CONNECT_AGAIN_AFTER_S)


def serve_waiting(installation: Installation, options: BackupOptions, *, say: Say) -> None:
    """Make the requested backup, if there is one, and return."""
    with _connected(installation) as own:
        _serve_one(installation, own, options, say)


def _serve_while_connected(installation: Installation, options: BackupOptions, say: Say) -> NoReturn:
    with _connected(installation) as own:
        own.ask("SELECT 1")
        say("waiting for requests")
        while True:
            _serve_one(installation, own, options, say)
            time.sleep(_LOOK_EVERY_S)


def _serve_one(installation: Installation, own: Session, options: BackupOptions, say: Say) -> None:
    """Make the requested backup, if there is one, after any other that is being made."""
    if own.ask(_IS_WANTED) != "t":
        return
    own.ask(f"SELECT pg_advisory_lock({AT_WORK})")
    try:
        # Empty if another agent was faster.
        if id_ := own.ask(_TAKE):
            columns, told = _outcome(installation, options, say)
            own.ask(
                f"UPDATE backup_requests SET ended_at = now(), {columns} "
                f"WHERE id = {_quoted(id_)} AND ended_at IS NULL"
            )
            say(told)
    finally:
        own.ask(f"SELECT pg_advisory_unlock({AT_WORK})")


def _outcome(installation: Installation, options: BackupOptions, say: Say) -> tuple[str, str]:
    """Make a backup; return its outcome as columns and as a line for the log."""
    try:
        with _within(LONGEST_S):
            file = backups.write(installation, options, say=say)
    except _FAILURES as error:
        return f"error = {_quoted(str(error)[-_MOST_OF_AN_ERROR:])}", f"the backup failed: {error}"
    size, is_sealed = file.stat().st_size, sealing.is_sealed(file)
    columns = f"file = {_quoted(file.name)}, bytes = {size}, is_encrypted = {is_sealed}"
    return columns, f"{file}: {size:,} bytes"


@contextmanager
def _connected(installation: Installation) -> Iterator[Session]:
    if not installation.is_running:
        raise UpkeepError(NOTHING_RUNS)
    with session(installation, DATABASES["batch-processor"]) as own:
        yield own


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    """Raise `UpkeepError` in the block after so many seconds, wherever it waits."""

    def give_up(*_: object) -> None:
        raise UpkeepError(f"The backup was not complete after {seconds} s.")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _quoted(text: str) -> str:
    """Return `text` as a literal of SQL."""
    doubled = text.replace("\0", "").replace("'", "''")
    return f"'{doubled}'"
