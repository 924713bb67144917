"""A double of Alpaca's market data API: its documented protocol."""

from __future__ import annotations

import base64
import re
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from support.doubles.upstream import SeenRequest, UpstreamAnswer, UpstreamServer, answer_json, listening

KEY_ID = "PKTEST"
SECRET = "alpaca-secret"

_SYMBOL = re.compile(r"^[A-Z.]{1,10}$")

FORBIDDEN = answer_json({"message": "forbidden."}, 403)
NO_SUBSCRIPTION = answer_json({"message": "subscription does not permit querying recent SIP data"}, 403)


def too_many(reset_in_s: float) -> UpstreamAnswer:
    reset = str(int(time.time() + reset_in_s))
    return answer_json(
        {"message": "too many requests."}, 429, x_ratelimit_limit="200", x_ratelimit_reset=reset
    )


def bar(day: str, *, o: Any = 10, h: Any = 12, l: Any = 9, c: Any = 11, v: Any = 1000) -> dict[str, Any]:  # noqa: E741
    return {"t": f"{day}T05:00:00Z", "o": o, "h": h, "l": l, "c": c, "v": v, "n": 12, "vw": 10.5}


def split(symbol: str, ex_date: str, new_rate: Any, old_rate: Any = 1) -> dict[str, Any]:
    return {
        "id": f"{symbol}-{ex_date}",
        "symbol": symbol,
        "ex_date": ex_date,
        "process_date": ex_date,
        "new_rate": new_rate,
        "old_rate": old_rate,
    }


def snapshot(
    price: Any, *, previous_close: Any = 10, at: str = "2024-01-03T19:59:59.123456789Z"
) -> dict[str, Any]:
    return {
        "latestTrade": {"t": at, "x": "V", "p": price, "s": 100, "c": ["@"], "i": 1, "z": "C"},
        "latestQuote": {
            "t": at,
            "ax": "V",
            "ap": 11.02,
            "as": 1,
            "bx": "V",
            "bp": 10.98,
            "bs": 2,
            "c": ["R"],
            "z": "C",
        },
        "minuteBar": bar("2024-01-03"),
        "dailyBar": bar("2024-01-03"),
        "prevDailyBar": bar(
            "2024-01-02", o=previous_close, h=previous_close, l=previous_close, c=previous_close
        ),
    }


class AlpacaDouble(UpstreamServer):
    """Answers `/v2/stocks/{symbol}/bars`, `/v2/stocks/snapshots`, `/v1/corporate-actions` from its fields."""

    def forget(self) -> None:
        """Reset: no data, no script, no recorded requests."""
        super().forget()
        self.bars: dict[str, list[dict[str, Any]]] = {}
        self.snapshots: dict[str, dict[str, Any] | None] = {}
        self.splits: list[dict[str, Any]] = []
        self.actions_answer: UpstreamAnswer | None = None
        self.first_action_day = ""
        self.page_size = 10_000
        self.names_invalid = True
        self.quota: int | None = None
        self.left = 0

    def answer(self, seen: SeenRequest) -> UpstreamAnswer:
        """Return Alpaca's answer to a request, with what is left of its quota if it has one."""
        if self.quota is None:
            return self._answer(seen)
        if not self.left:
            return too_many(60)
        self.left -= 1
        told = {"limit": self.quota, "remaining": self.left, "reset": int(time.time()) + 60}
        answer = self._answer(seen)
        headers = {f"x-ratelimit-{name}": str(number) for name, number in told.items()}
        return replace(answer, headers={**answer.headers, **headers})

    def allow(self, calls: int) -> None:
        """Answer so many more requests."""
        self.quota = self.left = calls

    def _answer(self, seen: SeenRequest) -> UpstreamAnswer:
        known = (seen.headers.get("apca-api-key-id"), seen.headers.get("apca-api-secret-key"))
        if known != (KEY_ID, SECRET):
            return FORBIDDEN
        if seen.path == "/v2/stocks/snapshots":
            return self._answer_snapshots(seen)
        if seen.path == "/v1/corporate-actions":
            return self.actions_answer or self._answer_actions(seen)
        found = re.fullmatch(r"/v2/stocks/([^/]+)/bars", seen.path)
        return self._answer_bars(found[1], seen) if found else answer_json({"message": "not found"}, 404)

    def _answer_snapshots(self, seen: SeenRequest) -> UpstreamAnswer:
        symbols = seen.query["symbols"].split(",")
        for symbol in symbols:
            if not _SYMBOL.match(symbol):
                named = f": {symbol}" if self.names_invalid else ""
                return answer_json({"message": f"invalid symbol{named}"}, 400)
        return answer_json({s: self.snapshots[s] for s in symbols if s in self.snapshots})

    def _answer_actions(self, seen: SeenRequest) -> UpstreamAnswer:
        symbols, (start, end) = seen.query["symbols"].split(","), (seen.query["start"], seen.query["end"])
        if start < self.first_action_day:
            return answer_json({"message": "start is too early"}, 400)
        found = [s for s in self.splits if s["symbol"] in symbols and start <= s["ex_date"] <= end]
        at = int(seen.query.get("page_token", "0"))
        page = found[at : at + self.page_size]
        actions: dict[str, list[dict[str, Any]]] = {}
        for each in page:
            kind = "forward_splits" if each["new_rate"] > each["old_rate"] else "reverse_splits"
            actions.setdefault(kind, []).append(each)
        token = str(at + len(page)) if at + len(page) < len(found) else None
        return answer_json({"corporate_actions": actions, "next_page_token": token})

    def _answer_bars(self, symbol: str, seen: SeenRequest) -> UpstreamAnswer:
        if not _SYMBOL.match(symbol):
            return answer_json({"message": f"invalid symbol: {symbol}"}, 400)
        if seen.query.get("timeframe") != "1Day":
            return answer_json({"message": "invalid timeframe"}, 400)
        limit = min(int(seen.query.get("limit", "1000")), self.page_size)
        start = base64.b64decode(seen.query.get("page_token", "")).decode() or seen.query["start"]
        end = seen.query.get("end", datetime.now(UTC).date().isoformat())
        if start > end:
            return answer_json({"message": "end should not be before start"}, 400)
        found = [b for b in self.bars.get(symbol, []) if start <= b["t"][:10] <= end]
        token = base64.b64encode(found[limit]["t"][:10].encode()).decode() if len(found) > limit else None
        return answer_json({"bars": found[:limit] or None, "symbol": symbol, "next_page_token": token})


def running() -> AbstractAsyncContextManager[AlpacaDouble]:
    """Return a double that listens on a free port of the loopback for the length of the block."""
    return listening(AlpacaDouble())
