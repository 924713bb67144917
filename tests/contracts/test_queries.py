"""Every named SQL statement exists: a missing one would be noticed only when its line runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chassis import queries

_SERVICES = Path(__file__).resolve().parents[2] / "services"
_USE = re.compile(r"(?:SQL|queries)\[\s*\"(\w+)\"\s*\]")
PACKAGES = sorted(folder.parent for folder in _SERVICES.glob("*/src/*/queries") if folder.is_dir())


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_every_statement_that_a_package_names_exists(package: Path) -> None:
    named = {name for file in package.rglob("*.py") for name in _USE.findall(file.read_text("utf-8"))}
    assert named, "no statement is asked for by name: has the way of asking changed?"
    assert named <= set(queries.of(package.name))


# What would stay with a connection when it goes back to its pool, where nothing is reset.
_STAYS = re.compile(
    r"pg_(?:try_)?advisory_lock(?:_shared)?\(|set_config\([^)]*,\s*false\)|\bWITH HOLD\b"
    r"|(?:\A|;)\s*(?:--[^\n]*\n\s*)*(?:SET (?!LOCAL\b)|LISTEN\b|PREPARE\b|CREATE TEMP)",
    re.IGNORECASE,
)
# The election of the feed, and migrations, hold their locks on connections of their own, outside the pool.
_OUTSIDE_THE_POOL = {"try_lock_builds", "try_lock_feed"}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_no_statement_changes_the_state_of_its_connection(package: Path) -> None:
    found = {name for name, statement in queries.of(package.name).items() if _STAYS.search(statement)}
    assert found <= _OUTSIDE_THE_POOL
    assert _STAYS.search("SELECT pg_try_advisory_lock($1)")
    assert _STAYS.search("-- Plenty.\nSET work_mem = '64MB'")
    assert not _STAYS.search("UPDATE a\nSET b = $1")
