"""Ticker symbols and their spelling."""

from __future__ import annotations

import re

from contracts.stocks import LONGEST_SYMBOL, SYMBOL
from stock_data.errors import InvalidSymbol


def parse(text: str) -> str:
    """Return `text` as a symbol in upper case. Raise `InvalidSymbol` when it cannot be one."""
    symbol = text.upper()
    # Upper-casing may lengthen or change exotic letters, so the ASCII check comes first.
    if not text.isascii() or len(symbol) > LONGEST_SYMBOL or not re.fullmatch(SYMBOL, symbol):
        raise InvalidSymbol(
            f"{text[:20]!r} is not a symbol: use 1 to 15 ASCII letters, digits or . ^ = -,"
            " at least one a letter or digit"
        )
    return symbol
