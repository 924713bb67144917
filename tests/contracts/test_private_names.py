"""Tests use the product by its public names, so that what is behind those can change."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PRIVATE = re.compile(r"_[A-Za-z]\w*")
# `package.module._name`, as a target of `monkeypatch.setattr`.
PRIVATE_PATH = re.compile(r"\w+([.:]\w+)*[.:]_[A-Za-z]\w*")
# Documented, and private by their names only.
PUBLIC = {"os._exit", "_replace"}
# These take the name of an attribute as a string.
BY_NAME = {"setattr", "getattr", "delattr", "hasattr", "attrgetter", "methodcaller"}


def own_names(tree: ast.AST) -> set[str]:
    """Return the names that the classes of a module define: methods, fields, and attributes of `self`."""
    names: set[str] = set()
    for kind in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for node in kind.body:
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    names.add(name)
                case ast.AnnAssign(target=ast.Name(id=name)):
                    names.add(name)
        stored = (node for node in ast.walk(kind) if isinstance(node, ast.Attribute))
        names |= {node.attr for node in stored if isinstance(node.ctx, ast.Store) and is_self(node.value)}
    return names


def is_self(value: ast.expr) -> bool:
    return ast.unparse(value) in ("self", "cls")


def named(node: ast.Call | ast.Subscript) -> Iterator[str]:
    """Yield the private names that a call has as a string or a keyword, or that are looked up in `vars`."""
    if isinstance(node, ast.Subscript):
        found = node.slice
        is_of_object = ast.unparse(node.value).startswith("vars(") or ast.unparse(node.value).endswith(
            "__dict__"
        )
        if is_of_object and isinstance(found, ast.Constant) and PRIVATE.fullmatch(str(found.value)):
            yield str(found.value)
        return
    function = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
    texts = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    yield from (text for text in texts if PRIVATE_PATH.fullmatch(text))
    if function in BY_NAME:
        yield from (text for text in texts if PRIVATE.fullmatch(text))
    yield from (word.arg for word in node.keywords if word.arg and PRIVATE.fullmatch(word.arg))


def private_names(source: str) -> Iterator[str]:
    """Yield each use of a private name that is not the module's own, as `line: name`."""
    tree = ast.parse(source)
    own = own_names(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=value, attr=name) if PRIVATE.fullmatch(name):
                is_own = name in own or is_self(value)
                if not is_own and not PUBLIC & {name, ast.unparse(node)}:
                    yield f"{node.lineno}: {ast.unparse(node)}"
            case ast.ImportFrom(module=module, names=imported):
                parts = [*(module or "").split("."), *(alias.name for alias in imported)]
                yield from (f"{node.lineno}: {part}" for part in parts if PRIVATE.fullmatch(part))
            case ast.Import(names=imported):
                parts = [part for alias in imported for part in alias.name.split(".")]
                yield from (f"{node.lineno}: {part}" for part in parts if PRIVATE.fullmatch(part))
            case ast.Call() | ast.Subscript():
                yield from (f"{node.lineno}: {name}" for name in named(node))


def test_no_test_uses_a_private_name_of_the_product() -> None:
    files = [file for file in sorted(TESTS.rglob("*.py")) if file != Path(__file__)]
    assert len(files) > 500
    uses = [f"{file.relative_to(TESTS)}:{use}" for file in files for use in private_names(file.read_text())]
    assert uses == []


def test_no_test_silences_the_check_of_private_names() -> None:
    files = [file for file in TESTS.rglob("*.py") if file != Path(__file__)]
    assert [str(file) for file in files if "SLF001" in file.read_text()] == []


@pytest.mark.parametrize(
    "source",
    [
        "server._take(message)",
        "class Double:\n    def close(self):\n        self.inner._close()",
        "_LIMIT = 5\nservice._LIMIT",
        "from gateway.chat.service import _AHEAD_EVERY_S",
        "from gateway._inner import name",
        "import gateway._inner",
        'monkeypatch.setattr("gateway.chat.service._AHEAD_EVERY_S", 0)',
        'monkeypatch.setattr(service, "_AHEAD_EVERY_S", 0)',
        'put("chassis.outbox", _SQL={})',
        'put("chassis.outbox:Relay._SQL", {})',
        'vars(outbox)["_SQL"]',
        'outbox.__dict__["_SQL"]',
    ],
)
def test_a_private_name_is_found(source: str) -> None:
    assert list(private_names(source))


@pytest.mark.parametrize(
    "source",
    [
        "class Double:\n    _count: int\n\ndouble._count",
        "class Double:\n    def take(self):\n        self._count = 0\n\ndouble._count",
        "os._exit(3)",
        "one._replace(number=2)",
        "found.__class__.__name__",
        'checked(domain(), "_tickwire")',
        'answer["_type"]',
        'name.endswith("_service")',
    ],
)
def test_other_names_are_not_taken_for_one(source: str) -> None:
    assert not list(private_names(source))
