"""Quotes that replicas share: once one has fetched a quote from an upstream, the others need no call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from chassis import logging, metrics, redaction
from chassis.cache import Cache
from contracts.message import Contract, Moment
from contracts.stocks import Quote

log = logging.get(__name__)


class FetchedQuote(Contract):
    """A quote, and when it was fetched from the provider."""

    fetched_at: Moment
    quote: Quote


@dataclass(frozen=True)
class SharedQuotes:
    """The quotes of the provider `source` in memcached, each for `ttl_s` seconds after it was fetched."""

    cache: Cache
    source: str
    ttl_s: float

    async def read(self, symbols: Sequence[str], now: datetime) -> dict[str, FetchedQuote]:
        """Return the quotes that a replica fetched within `ttl_s` seconds before `now`."""
        by_key = {f"{self.source}:{symbol}": symbol for symbol in symbols}
        found: dict[str, FetchedQuote] = {}
        for key, text in (await self.cache.get(by_key)).items():
            try:
                kept = FetchedQuote.model_validate_json(text)
            except ValidationError as error:
                # A replica of another release may write another shape.
                metrics.CACHE_READS.labels("quotes", "unreadable").inc()
                log.warning("shared quote cannot be read", reason=redaction.safe_message(error))
                continue
            age_s = (now - kept.fetched_at).total_seconds()
            if 0 <= age_s <= self.ttl_s:
                found[by_key[key]] = kept
        return found

    async def write(self, quotes: Mapping[str, Quote], fetched_at: datetime) -> None:
        """Share `quotes`, fetched at `fetched_at`, with the other replicas."""
        values = {
            f"{self.source}:{symbol}": FetchedQuote(fetched_at=fetched_at, quote=quote)
            .model_dump_json()
            .encode()
            for symbol, quote in quotes.items()
        }
        await self.cache.set(values, ttl_s=math.ceil(self.ttl_s))
