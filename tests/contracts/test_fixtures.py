"""Fixtures say what they are: a test that uses one is checked by its type."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeAlias

import pytest

TESTS = Path(__file__).parents[1]
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
# What is in these is what the fixture gives. `Any` elsewhere, as in `dict[str, Any]`, is of a JSON document.
WRAPPERS = {"AsyncGenerator", "AsyncIterator", "Generator", "Iterator", "list", "tuple"}
OF_PYTEST = {"capfd", "caplog", "capsys", "monkeypatch", "request", "tmp_path", "tmp_path_factory"}


@cache
def functions_of(file: Path) -> tuple[Function, ...]:
    tree = ast.parse(file.read_text())
    return tuple(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def is_fixture(function: Function) -> bool:
    return any("pytest.fixture" in ast.unparse(decorator) for decorator in function.decorator_list)


def fixtures_for(file: Path) -> set[str]:
    """Return the names of the fixtures that the functions of `file` can ask for."""
    folders = [folder for folder in file.parents if folder.is_relative_to(TESTS)]
    homes = [file, *(folder / "conftest.py" for folder in folders)]
    made = {each.name for home in homes if home.exists() for each in functions_of(home) if is_fixture(each)}
    return made | OF_PYTEST


def is_untyped(annotation: ast.expr | None) -> bool:
    """Return whether an annotation says nothing: `Any`, or a tuple, list or iterator of it."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) in WRAPPERS:
        inner = annotation.slice
        return any(map(is_untyped, inner.elts if isinstance(inner, ast.Tuple) else [inner]))
    return annotation is None or ast.unparse(annotation) == "Any"


def untyped(file: Path) -> Iterator[str]:
    """Yield the places in `file` where a fixture is made or used without a type."""
    fixtures = fixtures_for(file)
    for function in functions_of(file):
        if is_fixture(function) and is_untyped(function.returns):
            yield f"{function.name} is made"
        if is_fixture(function) or function.name.startswith("test_"):
            parameters = [*function.args.args, *function.args.kwonlyargs]
            yield from (
                f"{parameter.arg} is used by {function.name}"
                for parameter in parameters
                if parameter.arg in fixtures and is_untyped(parameter.annotation)
            )


def test_every_fixture_has_a_type_where_it_is_made_and_where_it_is_used() -> None:
    files = sorted(TESTS.rglob("*.py"))
    assert [f"{file.relative_to(TESTS)}: {place}" for file in files for place in untyped(file)] == []
    assert len({name for file in files for name in fixtures_for(file)}) > 100


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("Any", True),
        ("AsyncIterator[Any]", True),
        ("tuple[RunningGateway, Any]", True),
        ("Iterator[list[Any]]", True),
        ("dict[str, Any]", False),
        ("AsyncIterator[dict[str, Any]]", False),
        ("asyncpg.Pool[Any]", False),
        ("RunningGateway", False),
        ("None", False),
    ],
)
def test_an_annotation_that_says_nothing_is_recognised(annotation: str, expected: bool) -> None:
    assert is_untyped(ast.parse(annotation, mode="eval").body) == expected
