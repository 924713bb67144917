"""A statement that code asks for by name is there: a missing one shows only when the line runs."""

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
    assert named <= set(queries.load(package.name))
