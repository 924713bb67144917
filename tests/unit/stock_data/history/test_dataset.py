"""The shipped history against the facts that were checked when it was added."""

from __future__ import annotations

import csv
import io
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from importlib import resources

import pytest

from stock_data.history import dataset
from stock_data.history.bars import DailyBar

History = Mapping[str, Sequence[DailyBar]]


@pytest.fixture(scope="module")
def history() -> History:
    found: dict[str, list[DailyBar]] = defaultdict(list)
    rows = csv.reader(io.StringIO(dataset.read().csv.decode()))
    assert next(rows) == ["Ticker", "Date", "Open", "High", "Low", "Close", "Volume", "Adj Close"]
    for symbol, day, opening, high, low, close, volume, adjusted in rows:
        prices = (Decimal(opening), Decimal(high), Decimal(low), Decimal(close))
        found[symbol].append(DailyBar(date.fromisoformat(day), *prices, Decimal(volume), Decimal(adjusted)))
    return found


def test_every_company_has_its_bars(history: History) -> None:
    counts = {symbol: len(bars) for symbol, bars in history.items()}
    assert counts == {"AAPL": 3270, "FB": 196, "GOOG": 2148, "IBM": 3270, "MSFT": 3270}
    assert sum(counts.values()) == 12_154
    assert set(counts) == {company.symbol for company in dataset.COMPANIES}


def test_the_bars_go_from_the_listing_to_2013_03_01_in_order(history: History) -> None:
    firsts = {symbol: bars[0].day.isoformat() for symbol, bars in history.items()}
    assert firsts == {
        "AAPL": "2000-03-01",
        "FB": "2012-05-18",
        "GOOG": "2004-08-19",
        "IBM": "2000-03-01",
        "MSFT": "2000-03-01",
    }
    for bars in history.values():
        assert bars[-1].day == date(2013, 3, 1)
        days = [bar.day for bar in bars]
        assert days == sorted(set(days))


def test_no_bar_contradicts_itself(history: History) -> None:
    for bars in history.values():
        for bar in bars:
            assert 0 < bar.low <= min(bar.open, bar.close)
            assert bar.high >= max(bar.open, bar.close)
            assert bar.volume > 0


def test_no_company_misses_a_session_of_ibm(history: History) -> None:
    sessions = [bar.day for bar in history["IBM"]]
    for bars in history.values():
        assert [bar.day for bar in bars] == [day for day in sessions if day >= bars[0].day]


def test_the_adjusted_closes_jump_at_the_splits_and_nowhere_else(history: History) -> None:
    jumps = []
    for symbol, bars in sorted(history.items()):
        ratios = [(bar.day, (bar.adjusted_close or bar.close) / bar.close) for bar in bars]
        for (_, before), (day, after) in itertools.pairwise(ratios):
            if abs(after / before - 1) > Decimal("0.15"):
                jumps.append((symbol, day, round(after / before, 9)))
    named = [(c.symbol, s.day, s.ratio) for c in dataset.COMPANIES for s in c.splits]
    assert jumps == sorted(named)


def test_the_source_of_the_data_is_documented_beside_it() -> None:
    notice = resources.files("stock_data").joinpath("data", "NOTICE").read_text(encoding="utf-8")
    assert "Public domain" in notice
    assert "Quandl WIKI" in notice
    assert dataset.read().sha256 in notice


def test_a_damaged_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "SHA256", "0" * 64)
    with pytest.raises(dataset.DamagedDataset, match="reinstall the service"):
        dataset.read()
