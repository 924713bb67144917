"""The notes for an upgrade name what must be done before it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from upkeep import upgrades
from upkeep.installation import DATABASES
from upkeep.native_stack import NativeStack

REPOSITORY = Path(__file__).resolve().parents[3]


class ReadyInstallation:
    """An installation that is ready, whose backup is of now, with these migrations applied."""

    is_running = True

    def __init__(self, applied: list[str]) -> None:
        self.applied = applied

    def readiness(self, service: str) -> str:
        return f"200 {service}"

    def answer(self, _: object, database: str, statement: str) -> str:
        """Return the database's answer to a query."""
        if "FROM migrations" in statement:
            return " ".join(name for name in self.applied if name.partition("/")[0] in (database, "chassis"))
        return "99999999999" if "backups" in statement else "0"


def noted(monkeypatch: pytest.MonkeyPatch, *, without: str) -> list[str]:
    """Return the notes before an upgrade from a release with every migration of this one but `without`."""
    every = [name for database in DATABASES.values() for name in upgrades.migrations(REPOSITORY, database)]
    running = ReadyInstallation([name for name in every if name != without])
    monkeypatch.setattr(upgrades, "query", running.answer)
    notes, problems = upgrades.check(cast(NativeStack, running), REPOSITORY)
    assert problems == []
    return notes


def test_an_upgrade_from_a_release_without_bundles_requires_them_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes = noted(monkeypatch, without="emailer/0015_stamp_recipients")
    assert [note for note in notes if "MESSAGE_BUNDLES=off" in note and note.startswith("email: ")]


def test_an_upgrade_with_the_same_migrations_has_no_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [note for note in noted(monkeypatch, without="") if "MESSAGE_BUNDLES" in note] == []
