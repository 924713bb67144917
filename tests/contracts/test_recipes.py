"""The code in the guides uses only files, names and fixtures that exist, or that the guide itself makes."""

from __future__ import annotations

import ast
import importlib
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
GUIDES = {file.stem: file.read_text() for file in sorted((REPOSITORY / "docs/guides").glob("*.md"))}
RECIPES = [name for name, text in GUIDES.items() if "```python" in text]
FIXTURE = re.compile(r"@pytest\.fixture.*\n(?:async )?def (\w+)")
CONSTANT = re.compile(r"^([A-Z_]+)\b[^=\n]* = ", re.MULTILINE)
FILE = re.compile(r"`([\w.-]+/[\w./-]+\.(?:py|sql|yml|yaml|toml))`")
# What a guide makes, or has its reader install.
MADE = ("gateway.notes", "centrifuge")


def modules(guide: str) -> list[ast.Module]:
    """Return the Python code of a guide; blocks in a list and parts of a class are indented."""
    blocks = re.findall(r"^ *```python\n(.*?)^ *```$", GUIDES[guide], re.DOTALL | re.MULTILINE)
    return [ast.parse(textwrap.dedent(block)) for block in blocks]


@cache
def fixtures() -> frozenset[str]:
    files = (REPOSITORY / "tests").rglob("*.py")
    return frozenset(name for file in files for name in FIXTURE.findall(file.read_text()))


def missing_imports(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if not isinstance(node, ast.ImportFrom) or not node.module or node.module.startswith(MADE):
            continue
        home = importlib.import_module(node.module)
        folder = Path(str(home.__file__)).parent
        names = [alias.name for alias in node.names]
        missing = [name for name in names if not hasattr(home, name) and not (folder / f"{name}.py").exists()]
        yield from (f"{node.module}.{name}" for name in missing)


def missing_fixtures(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield from (argument.arg for argument in node.args.args if argument.arg not in fixtures())


@cache
def constants() -> frozenset[str]:
    files = [file for folder in ("services", "tests") for file in (REPOSITORY / folder).rglob("*.py")]
    return frozenset(name for file in files for name in CONSTANT.findall(file.read_text()))


def missing_constants(module: ast.Module) -> Iterator[str]:
    names = [node for node in ast.walk(module) if isinstance(node, ast.Name)]
    own = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    own |= {
        alias.name for node in ast.walk(module) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    used = {node.id for node in names if node.id.isupper()}
    yield from sorted(used - own - constants())


@pytest.mark.parametrize("guide", RECIPES)
def test_the_code_of_a_guide_imports_what_exists(guide: str) -> None:
    assert [name for module in modules(guide) for name in missing_imports(module)] == []


@pytest.mark.parametrize("guide", RECIPES)
def test_a_test_in_a_guide_uses_fixtures_that_exist(guide: str) -> None:
    assert [name for module in modules(guide) for name in missing_fixtures(module)] == []


@pytest.mark.parametrize("guide", RECIPES)
def test_a_constant_that_a_guide_uses_exists(guide: str) -> None:
    assert [name for module in modules(guide) for name in missing_constants(module)] == []


@pytest.mark.parametrize("guide", [name for name in GUIDES if name.startswith("add-a-")])
def test_a_file_that_a_recipe_names_exists(guide: str) -> None:
    named = {name for name in FILE.findall(GUIDES[guide]) if "notes" not in name}
    homes = [REPOSITORY, *(REPOSITORY / "services").glob("*/src"), *(REPOSITORY / "services").glob("*/src/*")]
    assert named
    assert [name for name in sorted(named) if not any((home / name).exists() for home in homes)] == []


def test_missing_imports_constants_and_fixtures_are_found() -> None:
    module = ast.parse(
        "from chassis.errors import Nothing\nasync def test_x(door: str, listener: str): ...\n"
    )
    assert list(missing_imports(module)) == ["chassis.errors.Nothing"]
    assert list(missing_fixtures(module)) == ["door"]
    assert list(missing_constants(ast.parse("A_B = 1\nprint(A_B, OF_NOTHING, CONSTANT)"))) == ["OF_NOTHING"]
