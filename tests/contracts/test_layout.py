"""The rules about layout that no linter holds: imports of contracts, seams of tests, sizes of files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MOST_BYTES = 1 << 20
ALLOWED = {*sys.stdlib_module_names, "contracts", "email_validator", "pydantic", "pydantic_core"}


def imported(file: Path) -> Iterator[str]:
    """Yield the modules that a module imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_contracts_import_pydantic_and_email_validator_only() -> None:
    files = list((REPOSITORY / "services" / "contracts" / "src").rglob("*.py"))
    assert files
    assert {name.partition(".")[0] for file in files for name in imported(file)} <= ALLOWED


def test_no_test_imports_a_conftest() -> None:
    files = list((REPOSITORY / "tests").rglob("*.py"))
    assert files
    assert [str(file) for file in files if any("conftest" in name for name in imported(file))] == []


@pytest.mark.parametrize("folder", ["unit", "integration", "contracts", "deploy", "e2e"])
def test_the_helpers_of_tests_are_in_one_place(folder: str) -> None:
    others = {
        str(file.relative_to(REPOSITORY))
        for file in (REPOSITORY / "tests" / folder).rglob("*.py")
        if not re.fullmatch(r"test_\w+|conftest|__init__", file.stem)
    }
    # A plug-in of Schemathesis, beside its configuration.
    assert others <= {"tests/e2e/schemathesis_hooks.py"}


def test_no_module_has_more_than_400_lines() -> None:
    files = [file for folder in ("services", "tests") for file in (REPOSITORY / folder).rglob("*.py")]
    assert files
    lines = {str(file.relative_to(REPOSITORY)): len(file.read_text().splitlines()) for file in files}
    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_no_file_of_the_repository_is_larger_than_a_mebibyte() -> None:
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    files = [REPOSITORY / name for name in listed.split("\0") if (REPOSITORY / name).is_file()]
    assert len(files) > 1000
    assert [str(file) for file in files if file.stat().st_size > MOST_BYTES] == []
