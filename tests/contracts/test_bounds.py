"""The table of bounds agrees with the settings and the code, and names tests that exist."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batch_processor.settings import BatchProcessorSettings
from chassis.settings import Settings
from emailer.settings import EmailSettings
from gateway.settings import GatewaySettings
from stock_data.settings import StockDataSettings

_REPOSITORY = Path(__file__).resolve().parents[2]
_PAGE = _REPOSITORY / "docs" / "guides" / "bounds.md"
_ROW = re.compile(
    r"\| (?P<what>[^|]+) \| `(?P<source>[^`]+)` \| `(?P<value>[^`]+)`[^|]*\| [^|]+ \| `(?P<test>[^`]+)` \|"
)
_SETTINGS: tuple[type[Settings], ...] = (
    GatewaySettings,
    StockDataSettings,
    EmailSettings,
    BatchProcessorSettings,
)


@dataclass(frozen=True)
class BoundRow:
    """A row of the table."""

    what: str
    source: str
    value: str
    test: str


BOUNDS = [BoundRow(**row.groupdict()) for row in _ROW.finditer(_PAGE.read_text(encoding="utf-8"))]


def test_every_row_of_the_table_is_read() -> None:
    rows = [line for line in _PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    heads = [line for line in rows if line.startswith("| what |")]
    assert len(BOUNDS) == len(rows) - len(heads) > 50


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda one: one.source)
def test_a_bound_has_the_value_that_the_table_says(bound: BoundRow) -> None:
    found = _default(bound.source) if bound.source.isupper() else _constant(bound.source)
    assert float(found) == float(bound.value)


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda one: one.what)
def test_a_bound_is_shown_by_a_test_that_exists(bound: BoundRow) -> None:
    file, _, name = bound.test.partition("::")
    assert re.search(rf"^(async )?def {name}\(", (_REPOSITORY / file).read_text(encoding="utf-8"), re.M)


def _default(variable: str) -> Any:
    """Return the default of the setting that the environment variable sets."""
    named = {
        f"{'' if name in Settings.model_fields else one.prefix}{name.upper()}": field.default
        for one in _SETTINGS
        for name, field in one.model_fields.items()
    }
    return named[variable]


def _constant(path: str) -> Any:
    """Return the value of a module's constant, or of an attribute of its class."""
    home, _, name = path.rpartition(".")
    module, _, owner = home.rpartition(".")
    if owner[:1].isupper():
        return getattr(vars(importlib.import_module(module))[owner], name)
    return vars(importlib.import_module(home))[name]
