"""The shape of the code: short functions, little nesting, few helpers that are used once, telling names."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PROJECTS = [
    *(str(folder.parent.relative_to(REPOSITORY)) for folder in REPOSITORY.glob("services/*/pyproject.toml")),
    "deploy",
    "tests",
]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)
MOST_LINES = 50
MOST_LEVELS = 3
MOST_USED_ONCE = 0.15
VAGUE = re.compile(r"(utils?|helpers?|common|managers?|base|misc)(\.py)?")


@cache
def functions(project: str) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    """Return the place of each function, the function, and the text of its module."""
    found = []
    for file in sorted((REPOSITORY / project).rglob("*.py")):
        text = file.read_text()
        place = str(file.relative_to(REPOSITORY))
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, FUNCTIONS)]
        found += [(f"{place}:{node.lineno} {node.name}", node, text) for node in nodes]
    return found


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many lines a function has, without its docstring."""
    first = function.body[0]
    described = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) else 0
    return (function.end_lineno or 0) - function.lineno + 1 - described


def levels(node: ast.AST) -> int:
    """Return how deep blocks are nested below `node`; an `elif` is no deeper than its `if`."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*FUNCTIONS, ast.ClassDef, ast.Lambda)):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, levels(child) + (isinstance(child, BLOCKS) and not is_elif))
    return deepest


def is_used_once(function: ast.FunctionDef | ast.AsyncFunctionDef, text: str) -> bool:
    """Return whether a function is private and its module names it once beside its definition."""
    name = function.name
    return re.match("_[^_]", name) is not None and len(re.findall(rf"\b{name}\b", text)) <= 2


@pytest.mark.parametrize("project", PROJECTS)
def test_functions_are_short_and_flat(project: str) -> None:
    found = functions(project)
    assert found
    assert [place for place, function, _ in found if lines(function) > MOST_LINES] == []
    assert [place for place, function, _ in found if levels(function) > MOST_LEVELS] == []


@pytest.mark.parametrize("project", PROJECTS)
def test_few_private_functions_are_used_once(project: str) -> None:
    found = functions(project)
    once = [place for place, function, text in found if is_used_once(function, text)]
    assert len(once) <= MOST_USED_ONCE * len(found), once


def test_no_module_has_a_name_that_says_nothing() -> None:
    folders = [REPOSITORY / name for name in ("services", "deploy", "tests")]
    modules = [file.relative_to(REPOSITORY) for folder in folders for file in folder.rglob("*.py")]
    assert modules
    assert [str(file) for file in modules if any(VAGUE.fullmatch(part) for part in file.parts)] == []


def test_a_function_that_is_deep_long_or_used_once_is_found() -> None:
    text = "def _f(a):\n    for b in a:\n        if b:\n            pass\n        elif a:\n            pass\n"
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef)
    assert (lines(function), levels(function)) == (6, 2)
    assert is_used_once(function, f"{text}_f(1)")
    assert not is_used_once(function, f"{text}_f(1)\n_f(2)")


# Names that each service has for the same concept.
OF_EACH_SERVICE = {"Resources", "InvalidCursor", "Operation"}


def test_the_name_of_a_class_has_one_meaning_in_services_deployment_and_tests() -> None:
    homes: dict[str, list[str]] = {}
    folders = [REPOSITORY / name for name in ("services", "deploy", "tests")]
    for file in sorted(file for folder in folders for file in folder.rglob("*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(str(file.relative_to(REPOSITORY)))
    assert homes
    shared = {name: files for name, files in homes.items() if len(files) > 1}
    assert {name: files for name, files in shared.items() if name not in OF_EACH_SERVICE} == {}
    assert shared.keys() >= OF_EACH_SERVICE


def test_a_set_of_names_is_written_once_in_all_services() -> None:
    """Statuses, kinds, stages and formats: a second list of them would drift from the first."""
    places = defaultdict(list)
    for file in sorted((REPOSITORY / "services").rglob("src/**/*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Tuple | ast.List | ast.Set):
                continue
            values = [one.value for one in node.elts if isinstance(one, ast.Constant)]
            names = [value for value in values if isinstance(value, str)]
            # The methods of HTTP are what RFC 9110 says, wherever they are listed.
            if len(names) == len(node.elts) >= 3 and "GET" not in names:
                listed = tuple(sorted(names)) if isinstance(node, ast.Set) else tuple(names)
                places[listed].append(f"{file.relative_to(REPOSITORY)}:{node.lineno}")
    assert len(places) > 50
    assert not {names: where for names, where in places.items() if len(where) > 1}
