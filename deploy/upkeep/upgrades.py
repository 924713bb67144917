"""The check, before anything is replaced, whether this release can replace the one that runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from upkeep.errors import NOTHING_RUNS, UpkeepError
from upkeep.installation import DATABASES, query
from upkeep.native_stack import NativeStack

_BACKUP_S = 24 * 3600


def check(installation: NativeStack, repository: Path) -> tuple[list[str], list[str]]:
    """Return notes to read before an upgrade, and the problems that prevent it now."""
    if not installation.is_running:
        raise UpkeepError(NOTHING_RUNS)
    notes, problems = [], []
    for service, database in DATABASES.items():
        here = dict.fromkeys(migrations(repository, database))
        there = query(
            installation, database, "SELECT package || '/' || name FROM migrations ORDER BY 1;"
        ).split()
        pending = [name for name in here if name not in there]
        later = [name for name in there if name not in here]
        notes.append(
            f"{service}: {len(there)} migrations applied, {len(pending)} pending {' '.join(pending)}".rstrip()
        )
        notes += [f"{service}: {text}" for name, text in _attention(repository) if name in pending]
        if later:
            # The running release is newer. This one works with its schema if it is the previous release.
            notes.append(f"{service}: this is a way back, its schema stays as it is: {' '.join(later)}")
        ready = installation.readiness(service)
        if not ready.startswith("200 "):
            problems.append(f"{service} is not ready: {ready}")
    last = float(
        query(
            installation, "gateway", "SELECT coalesce(extract(epoch FROM max(started_at)), 0) FROM backups;"
        )
    )
    if time.time() - last > _BACKUP_S:
        problems.append("There is no backup of the last 24 hours: make backup")
    for database in DATABASES.values():
        parked = query(installation, database, "SELECT count(*) FROM parked;")
        if parked != "0":
            notes.append(f"{database}: {parked} messages are parked; they stay so")
    return notes, problems


def _attention(repository: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of a migration, and the advice for an upgrade that applies it.

    They are in a separate file, because the script for containers reads it, too.
    """
    for line in (repository / "deploy/upkeep/attention.txt").read_text(encoding="utf-8").splitlines():
        name, _, text = line.partition("|")
        yield name, text


def migrations(repository: Path, package: str) -> Iterator[str]:
    """Return the migrations of a service in this release, in order."""
    folders = {"chassis": repository / "services/chassis/src/chassis/schema"}
    (own,) = repository.glob(f"services/*/src/{package}/migrations")
    folders[package] = own
    for owner, folder in folders.items():
        for file in sorted(folder.glob("*.sql")):
            yield f"{owner}/{file.stem}"
