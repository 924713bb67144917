"""Splits from Alpaca's corporate actions: without them the last close cannot be compared with a price."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from chassis import logging
from chassis.deadlines import Deadline
from stock_data import sessions
from stock_data.errors import BadData, ProviderFailure, ShareUsedUp, UpstreamDown
from stock_data.history.bars import Split
from stock_data.providers import alpaca_payloads, payloads
from stock_data.providers.guarded import LEAST_TIME_S
from stock_data.providers.payloads import Malformed
from stock_data.providers.transport import Transport

log = logging.get(__name__)

# Alpaca may enter a split only on the day on which it takes effect.
_KEPT_S = 3600.0
_PAUSE_AFTER_FAILURE_S = 30.0
_MOST_SYMBOLS = 20_000
_MOST_PAGES = 10
# Limit of a page of up to 1,000 splits, which take 0.2 KiB each.
_PAGE_BYTES = 1 << 20
_SHARE_OF_DEADLINE = 0.5
# Symbols that were traded earlier than this before the newest are asked for separately.
_RECENT = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class _Kept:
    day: date
    until: float
    splits: tuple[Split, ...]


class AlpacaSplits:
    """Splits by symbol and trading day, each requested at most once an hour."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        # Of recent days, and of earlier ones.
        self._paused_until = {True: 0.0, False: 0.0}

    async def between_sessions(
        self, days: Mapping[str, date], deadline: Deadline
    ) -> Mapping[str, tuple[Split, ...]]:
        """Return, for each symbol of `days`, the splits since the session before its day.

        A symbol is left out when Alpaca does not answer: its quote is returned without a change.
        """
        now = time.monotonic()
        missing = {s: day for s, day in days.items() if self._fresh(s, day, now) is None}
        # One symbol that was last traded long ago would have Alpaca list the splits of years, of all of them.
        since = max(missing.values()) - _RECENT if missing else date.min
        recent = {symbol: day for symbol, day in missing.items() if day >= since}
        earlier = {symbol: day for symbol, day in missing.items() if day < since}
        for is_recent, group in ((True, recent), (False, earlier)):
            if not group or now < self._paused_until[is_recent]:
                continue
            given_s = deadline.remaining_s()
            try:
                found = await self._ask(group, Deadline.after(given_s * _SHARE_OF_DEADLINE))
            except ProviderFailure as error:
                is_of_alpaca = given_s >= LEAST_TIME_S or not isinstance(error, UpstreamDown)
                if is_of_alpaca and not isinstance(error, ShareUsedUp):
                    self._paused_until[is_recent] = now + _PAUSE_AFTER_FAILURE_S
                log.warning(
                    "quotes have no change: splits are unavailable", kind=error.kind, detail=error.detail
                )
                continue
            for symbol, splits in found.items():
                self._kept[symbol] = _Kept(group[symbol], now + _KEPT_S, tuple(splits))
                self._kept.move_to_end(symbol)
        while len(self._kept) > _MOST_SYMBOLS:
            self._kept.popitem(last=False)
        kept = {symbol: self._fresh(symbol, day, now) for symbol, day in days.items()}
        return {symbol: each.splits for symbol, each in kept.items() if each is not None}

    def _fresh(self, symbol: str, day: date, now: float) -> _Kept | None:
        kept = self._kept.get(symbol)
        return kept if kept is not None and kept.day == day and now < kept.until else None

    async def _ask(self, days: Mapping[str, date], deadline: Deadline) -> dict[str, list[Split]]:
        query = {
            "symbols": ",".join(days),
            "types": "forward_split,reverse_split",
            "start": sessions.session_before(min(days.values())).isoformat(),
            "end": max(days.values()).isoformat(),
            "limit": str(alpaca_payloads.MOST_ACTIONS),
        }
        found: dict[str, list[Split]] = {symbol: [] for symbol in days}
        for _ in range(_MOST_PAGES):
            body = await self._transport.get("/v1/corporate-actions", query, deadline, most_bytes=_PAGE_BYTES)
            page = await payloads.read(alpaca_payloads.ACTIONS, body)
            actions = page.corporate_actions
            for each in (*actions.forward_splits, *actions.reverse_splits):
                if each.symbol is None:
                    log.warning("a split without a symbol is left out", detail=each.reason)
                elif isinstance(each, Malformed):
                    # A split that cannot be read leaves its symbol out.
                    found.pop(each.symbol, None)
                elif (split := Split(each.ex_date, each.ratio)) not in found.get(each.symbol, (split,)):
                    # One that is listed twice, such as on two pages, counts once.
                    found[each.symbol].append(split)
            if page.next_page_token is None:
                return found
            query["page_token"] = page.next_page_token
        raise BadData("Alpaca's pages of corporate actions do not end.")
