"""The page about what is stored names every table of every database, and settings that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]
_PAGE = (_REPOSITORY / "docs" / "guides" / "stored-data.md").read_text(encoding="utf-8")
_TABLE = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?([a-z_]+) \(")
_ROW = re.compile(r"^\| `([a-z_]+)` \| [^|]+ \| [^|]+ \|$", re.M)
_HOMES = {
    "Every service": ("chassis/src/chassis/schema", "chassis/src/chassis/queries"),
    "gateway": ("gateway/src/gateway/migrations",),
    "stock-data": ("stock-data/src/stock_data/migrations",),
    "email": ("email/src/emailer/migrations",),
    "batch-processor": ("batch-processor/src/batch_processor/migrations",),
}


@pytest.mark.parametrize("home", _HOMES)
def test_every_table_of_a_database_has_a_row(home: str) -> None:
    files = [file for path in _HOMES[home] for file in (_REPOSITORY / "services" / path).glob("*.sql")]
    tables = {table for file in files for table in _TABLE.findall(file.read_text(encoding="utf-8"))}
    part = _PAGE.partition(f"## {home}\n")[2].partition("\n## ")[0]
    assert len(tables) > 3
    assert sorted(_ROW.findall(part)) == sorted(tables)


def test_the_settings_that_are_named_exist() -> None:
    example = (_REPOSITORY / ".env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)[`=]", _PAGE))
    assert len(named) > 10
    assert [name for name in sorted(named) if f"#{name}=" not in example] == []
