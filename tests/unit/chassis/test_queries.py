"""SQL is declared where it is used and read where the program is put together."""

from __future__ import annotations

from pathlib import Path

import pytest

from chassis import queries


def test_statements_that_were_not_loaded_say_what_to_do() -> None:
    statements = queries.Statements("chassis")
    with pytest.raises(RuntimeError, match=r'not loaded: call queries\.load\("chassis"\)'):
        statements["probe_read"]


def test_loaded_statements_are_those_of_the_files() -> None:
    statements = queries.Statements("chassis")
    statements.load()
    assert statements["probe_read"] == "SELECT 1"
    assert len(statements) == len(list(statements)) == len(queries.of("chassis"))


def test_a_package_has_one_set_of_statements() -> None:
    assert queries.of("gateway") is queries.of("gateway")


def test_a_package_without_queries_has_no_statements() -> None:
    statements = queries.Statements("contracts")
    statements.load()
    assert dict(statements) == {}


def test_a_name_that_is_defined_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "twice_named"
    (folder / "queries").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "queries" / "one.sql").write_text("-- name: ask\nSELECT 1\n\n-- name: ask\nSELECT 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="ask is defined twice"):
        queries.Statements("twice_named").load()
