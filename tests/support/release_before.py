"""The previous release, for tests of upgrades: the code from before the newest migration.

It does not know all of the schema. UPGRADE_FROM names another commit.
"""

from __future__ import annotations

import os
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
_MIGRATIONS = ("services/chassis/src/chassis/schema/*.sql", "services/*/src/*/migrations/*.sql")


@contextmanager
def checkout(folder: Path) -> Iterator[Path]:
    """Yield `folder` with a checkout in it; skip the test, or fail in CI, where the history is not there."""
    git = ["git", "-C", str(REPOSITORY)]
    words = [*git, "log", "-1", "--diff-filter=A", "--format=%H~1", "--", *_MIGRATIONS]
    newest = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    before = os.environ.get("UPGRADE_FROM", newest)
    git += ["worktree"]
    added = subprocess.run(
        [*git, "add", "--detach", str(folder), before], capture_output=True, text=True, check=False
    )
    if added.returncode:
        if os.environ.get("CI"):
            pytest.fail(f"the history of the repository is needed: {added.stderr}")
        pytest.skip(f"{before} is not known here: {added.stderr}")
    try:
        for project in folder.glob("services/*/pyproject.toml"):
            _install_beside(project)
        if before == newest:
            assert _migrations(folder) < _migrations(REPOSITORY)
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True, capture_output=True)


def _migrations(checked_out: Path) -> set[Path]:
    return {file.relative_to(checked_out) for pattern in _MIGRATIONS for file in checked_out.glob(pattern)}


def _install_beside(project: Path) -> None:
    """Write what an installation says of a package beside its sources: with operations of its own."""
    described = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    name, version = described["name"], described["version"]
    about = project.parent / "src" / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, found in described.get("entry-points", {}).items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in found.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
