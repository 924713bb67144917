"""Ticker symbols and their spelling."""

from __future__ import annotations

import re

from stock_data.errors import InvalidSymbol

_SYMBOL = re.compile(r"[A-Z0-9.^=-]{1,15}")


def parse(text: str) -> str:
    """Return `text` as a symbol in upper case. Raise `InvalidSymbol` when it cannot be one."""
    symbol = text.upper()
    # Upper-casing may lengthen or change exotic letters, so the ASCII check comes first.
    if not text.isascii() or not _SYMBOL.fullmatch(symbol):
        raise InvalidSymbol(f"{text[:20]!r} is not a symbol: use 1 to 15 ASCII letters, digits or . ^ = -")
    return symbol
