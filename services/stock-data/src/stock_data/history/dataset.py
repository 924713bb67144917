"""The embedded history: daily bars of five companies, 2000-03-01 to 2013-03-01, shipped with the service."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from importlib import resources

from stock_data.history.bars import Split

NAME = "quandl-wiki-2013"
SOURCE = "embedded"

# The columns of the file in their order, under the names that the table uses.
COLUMNS = ("symbol", "day", "open", "high", "low", "close", "volume", "adjusted_close")

_FILE = "stocks.csv.gz"
SHA256 = "e73fe05d106b7da1abe8f947264c514afd02cef5c9db4864b9437c84d6bd6069"


class DamagedDataset(Exception):
    """The shipped file is not the one that was checked when it was added to the repository."""


@dataclass(frozen=True, slots=True)
class Company:
    """One instrument of the data set, with the name it had in those years."""

    symbol: str
    name: str
    exchange: str
    splits: tuple[Split, ...] = ()


def _two_for_one(year: int, month: int, day: int) -> Split:
    return Split(date(year, month, day), Decimal(2))


COMPANIES = (
    Company("AAPL", "Apple Inc.", "NASDAQ", (_two_for_one(2000, 6, 21), _two_for_one(2005, 2, 28))),
    Company("FB", "Facebook, Inc.", "NASDAQ"),
    Company("GOOG", "Google Inc.", "NASDAQ"),
    Company("IBM", "International Business Machines Corporation", "NYSE"),
    Company("MSFT", "Microsoft Corporation", "NASDAQ", (_two_for_one(2003, 2, 18),)),
)


@dataclass(frozen=True, slots=True)
class Dataset:
    """The bars as CSV text with a header row, and the SHA-256 of that text."""

    csv: bytes
    sha256: str


def read() -> Dataset:
    """Return the shipped bars. Raise `DamagedDataset` when the file was changed or damaged."""
    packed = resources.files("stock_data").joinpath("data", _FILE).read_bytes()
    text = gzip.decompress(packed)
    digest = hashlib.sha256(text).hexdigest()
    if digest != SHA256:
        raise DamagedDataset(f"{_FILE} has SHA-256 {digest}, not {SHA256}; reinstall the service")
    return Dataset(text, digest)
