"""Cursors: the end of a page of bars, as opaque text for callers."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import date

from stock_data.errors import InvalidCursor


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last day of a page with its symbol, adjustment and provider, so that series are never mixed."""

    provider: str
    symbol: str
    adjustment: str
    day: date

    def encode(self) -> str:
        """Return the cursor as opaque text that is safe in a URL."""
        text = "|".join((self.provider, self.symbol, self.adjustment, self.day.isoformat()))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(text: str, *, symbol: str, adjustment: str) -> Cursor:
    """Parse a cursor. Raise `InvalidCursor` when `text` is not a cursor of this request."""
    try:
        padded = text + "=" * (-len(text) % 4)
        raw = base64.b64decode(padded.encode(), altchars=b"-_", validate=True).decode()
        provider, of_symbol, of_adjustment, day = raw.split("|")
        cursor = Cursor(provider, of_symbol, of_adjustment, date.fromisoformat(day))
    except (binascii.Error, ValueError) as error:
        raise InvalidCursor from error
    if (cursor.symbol, cursor.adjustment) != (symbol, adjustment):
        raise InvalidCursor
    return cursor
