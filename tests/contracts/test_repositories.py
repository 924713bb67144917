"""One style of storage: only repositories run SQL, and its text is in `.sql` files."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

_SOURCES = Path(__file__).resolve().parents[2] / "services"
# Not `chassis`: outbox, inbox, parked messages and migrations are parts of the kernel that every service is
# built on, each with its few statements beside what they are for.
SERVICES = ("gateway", "stock-data", "email", "batch-processor")
# What runs a statement on a connection, under names that nothing else has.
_RUNS = {"fetchrow", "fetchval", "executemany", "copy_records_to_table", "copy_to_table"}


def modules(service: str) -> list[Path]:
    """Return the modules of a service."""
    return sorted((_SOURCES / service / "src").rglob("*.py"))


def is_repository(module: Path) -> bool:
    """Return whether a module is named as one that runs statements."""
    return module.stem == "repository" or module.stem.endswith("_repository")


def uses_sql(text: str) -> bool:
    """Return whether the source of a module declares statements, or runs any on a connection."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == "chassis.queries":
            return True
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, name = ast.unparse(node.func.value), node.func.attr
        if (owner, name) == ("queries", "of") or name in _RUNS:
            return True
        if owner.endswith("connection") and name in ("fetch", "execute"):
            return True
    return False


@pytest.mark.parametrize("service", SERVICES)
def test_only_repositories_run_sql(service: str) -> None:
    found = [module for module in modules(service) if uses_sql(module.read_text("utf-8"))]
    assert found
    assert [str(module.relative_to(_SOURCES)) for module in found if not is_repository(module)] == []


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_named_repository_runs_sql(service: str) -> None:
    named = [module for module in modules(service) if is_repository(module)]
    assert [str(module.relative_to(_SOURCES)) for module in named if not uses_sql(module.read_text())] == []


def test_sql_is_found_however_a_module_comes_to_it() -> None:
    assert uses_sql('_SQL = queries.of("gateway")')
    assert uses_sql("from chassis.queries import of")
    assert uses_sql('async def f(connection): await connection.execute("SELECT 1")')
    assert uses_sql('async def f(self): return await self._connection.fetchval("SELECT 1")')
    assert not uses_sql("from chassis import queries\nqueries.load('gateway')")
    assert not uses_sql("async def f(context): return await context.fetch(request)")
