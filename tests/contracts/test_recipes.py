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

from generated import by_generator

REPOSITORY = Path(__file__).parents[2]
GUIDES = {file.stem: file.read_text() for file in sorted((REPOSITORY / "docs/guides").glob("*.md"))}
RECIPES = [name for name, text in GUIDES.items() if "```python" in text]
FIXTURE = re.compile(r"@pytest\.fixture.*\n(?:async )?def (\w+)")
CONSTANT = re.compile(r"^([A-Z_]+)\b[^=\n]* = ", re.MULTILINE)
# `Name` in `file.py`, `Name`s of `folder/file.py`.
HOME = re.compile(r"`(\w+)`s? (?:in|of) `((?:[\w-]+/)*\w+\.py)`")
SECRET = re.compile(r"alpaca[-_]secret[-_]key", re.IGNORECASE)
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
def sources() -> list[Path]:
    return [file for folder in ("services", "tests") for file in (REPOSITORY / folder).rglob("*.py")]


@cache
def constants() -> frozenset[str]:
    return frozenset(name for file in sources() for name in CONSTANT.findall(file.read_text()))


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


@pytest.mark.parametrize("guide", GUIDES)
def test_a_name_that_a_guide_says_is_in_a_file_is_there(guide: str) -> None:
    for name, place in HOME.findall(GUIDES[guide]):
        files = [file for file in sources() if str(file).endswith(f"/{place}")]
        assert any(re.search(rf"\b{name}\b", file.read_text()) for file in files), f"{name} in {place}"


def test_the_recipe_of_a_provider_names_every_place_of_a_secret() -> None:
    step = next(part for part in GUIDES["add-a-provider"].splitlines() if part.startswith("5."))
    files = [
        file
        for root in ("deploy", "docs/guides", "docs/runbooks", "k8s")
        for file in (REPOSITORY / root).rglob("*.*")
    ]
    files += [REPOSITORY / "compose.yaml", REPOSITORY / ".env.example"]
    places = [
        str(file.relative_to(REPOSITORY))
        for file in files
        if file.suffix in (".py", ".md", ".yaml", ".example") and SECRET.search(file.read_text())
    ]
    assert len(places) > 10
    named = {*re.findall(r"`([^`]+)`", step), "docs/guides/add-a-provider.md"}
    assert [place for place in places if not named & {place, *map(str, Path(place).parents)}] == []


@pytest.mark.parametrize(
    ("part", "example"),
    [
        ("A metric", "tickwire_smtp_connections"),
        ("An alert", "TickwireMailBouncing"),
        ("An alert", "causes.yml"),
    ],
)
def test_a_recipe_runs_every_generator_that_writes_about_its_thing(part: str, example: str) -> None:
    recipe = GUIDES["add-a-setting"].partition(f"## {part}\n")[2].partition("\n## ")[0]
    writers = [
        generator
        for generator, files in by_generator().items()
        if any(example in text for text in files.values())
    ]
    assert writers
    assert [writer for writer in writers if f"-m {writer}" not in recipe] == []


def test_missing_imports_constants_and_fixtures_are_found() -> None:
    module = ast.parse(
        "from chassis.errors import Nothing\nasync def test_x(door: str, listener: str): ...\n"
    )
    assert list(missing_imports(module)) == ["chassis.errors.Nothing"]
    assert list(missing_fixtures(module)) == ["door"]
    assert list(missing_constants(ast.parse("A_B = 1\nprint(A_B, OF_NOTHING, CONSTANT)"))) == ["OF_NOTHING"]
