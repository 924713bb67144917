"""A double of Alpaca's market data API: its documented protocol over real sockets, and every way to fail."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import socket
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import uvicorn

KEY_ID = "PKTEST"
SECRET = "alpaca-secret"

_SYMBOL = re.compile(r"^[A-Z.]{1,10}$")


@dataclass(frozen=True)
class Answer:
    """One HTTP answer. `cut` announces more bytes than it sends, `reset` sends none and resets instead."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0
    cut: bool = False
    reset: bool = False


def answer_json(value: Any, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(json.dumps(value).encode(), status, {"content-type": "application/json", **named})


FORBIDDEN = answer_json({"message": "forbidden."}, 403)
NO_SUBSCRIPTION = answer_json({"message": "subscription does not permit querying recent SIP data"}, 403)
BROKEN = answer_json({"message": "internal server error"}, 500)
UNAVAILABLE = Answer(b"<html>503 Service Unavailable</html>", 503, {"content-type": "text/html"})
TRUNCATED = Answer(b'{"bars":[{"t":"2024-01-02T05:00:00Z","o":1', 200, {"content-type": "application/json"})
PAGE = Answer(b"<!DOCTYPE html><html>Just a moment...</html>", 200, {"content-type": "text/html"})
PAGE_AS_JSON = Answer(b"<!DOCTYPE html><html></html>", 200, {"content-type": "application/json"})
RESET = Answer(b"", reset=True)
CUT = Answer(b'{"bars":', 200, {"content-type": "application/json"}, cut=True)
REDIRECT = Answer(b"", 302, {"location": "https://login.example/"})


def too_many(reset_in_s: float) -> Answer:
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


@dataclass(frozen=True)
class Seen:
    """A request that arrived."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


class AlpacaDouble:
    """Answers `/v2/stocks/{symbol}/bars`, `/v2/stocks/snapshots` and `/v1/corporate-actions` from its fields.

    Answers put into `script` are given first, one a request; `always` is given to every request after them.
    """

    def __init__(self) -> None:
        self.url = ""
        self.server: uvicorn.Server | None = None
        self.forget()

    def forget(self) -> None:
        """Be as new: no data, no script, nothing seen."""
        self.bars: dict[str, list[dict[str, Any]]] = {}
        self.snapshots: dict[str, dict[str, Any] | None] = {}
        self.splits: list[dict[str, Any]] = []
        self.actions_answer: Answer | None = None
        self.script: deque[Answer] = deque()
        self.always: Answer | None = None
        self.page_size = 10_000
        self.seen: list[Seen] = []

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.url.rsplit(":", 1)[1])

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        query = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        seen = Seen(scope["path"], query, headers)
        self.seen.append(seen)
        answer = self.script.popleft() if self.script else self.always or self._answer(seen)
        await asyncio.sleep(answer.delay_s)
        if answer.reset:
            self._reset_connections()
            return
        await _send(send, answer)

    def _answer(self, seen: Seen) -> Answer:
        known = (seen.headers.get("apca-api-key-id"), seen.headers.get("apca-api-secret-key"))
        if known != (KEY_ID, SECRET):
            return FORBIDDEN
        if seen.path == "/v2/stocks/snapshots":
            return self._answer_snapshots(seen)
        if seen.path == "/v1/corporate-actions":
            return self.actions_answer or self._answer_actions(seen)
        found = re.fullmatch(r"/v2/stocks/([^/]+)/bars", seen.path)
        return self._answer_bars(found[1], seen) if found else answer_json({"message": "not found"}, 404)

    def _answer_snapshots(self, seen: Seen) -> Answer:
        symbols = seen.query["symbols"].split(",")
        for symbol in symbols:
            if not _SYMBOL.match(symbol):
                return answer_json({"message": f"invalid symbol: {symbol}"}, 400)
        return answer_json({s: self.snapshots[s] for s in symbols if s in self.snapshots})

    def _answer_actions(self, seen: Seen) -> Answer:
        symbols, (start, end) = seen.query["symbols"].split(","), (seen.query["start"], seen.query["end"])
        found = [s for s in self.splits if s["symbol"] in symbols and start <= s["ex_date"] <= end]
        at = int(seen.query.get("page_token", "0"))
        page = found[at : at + self.page_size]
        actions: dict[str, list[dict[str, Any]]] = {}
        for each in page:
            kind = "forward_splits" if each["new_rate"] > each["old_rate"] else "reverse_splits"
            actions.setdefault(kind, []).append(each)
        token = str(at + len(page)) if at + len(page) < len(found) else None
        return answer_json({"corporate_actions": actions, "next_page_token": token})

    def _answer_bars(self, symbol: str, seen: Seen) -> Answer:
        if not _SYMBOL.match(symbol):
            return answer_json({"message": f"invalid symbol: {symbol}"}, 400)
        if seen.query.get("timeframe") != "1Day":
            return answer_json({"message": "invalid timeframe"}, 400)
        limit = min(int(seen.query.get("limit", "1000")), self.page_size)
        start = base64.b64decode(seen.query.get("page_token", "")).decode() or seen.query["start"]
        end = seen.query.get("end", "9999")
        found = [b for b in self.bars.get(symbol, []) if start <= b["t"][:10] <= end]
        token = base64.b64encode(found[limit]["t"][:10].encode()).decode() if len(found) > limit else None
        return answer_json({"bars": found[:limit] or None, "symbol": symbol, "next_page_token": token})

    def _reset_connections(self) -> None:
        assert self.server is not None
        for connection in list(self.server.server_state.connections):
            transport = connection.transport
            raw = transport.get_extra_info("socket")
            # With a linger time of 0 closing sends RST instead of FIN.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()


async def _send(send: Any, answer: Answer) -> None:
    length = len(answer.body) + (1000 if answer.cut else 0)
    headers = {"content-length": str(length), **answer.headers}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
    await send({"type": "http.response.body", "body": answer.body})


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def running() -> AsyncIterator[AlpacaDouble]:
    """A double that listens on a free port of the loopback for the length of the block."""
    double = AlpacaDouble()
    config = uvicorn.Config(
        double,
        host="127.0.0.1",
        port=0,
        lifespan="off",
        ws="none",
        http="h11",
        log_config=None,
        log_level="critical",
    )
    double.server = server = _Server(config)
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not task.done(), task
            await asyncio.sleep(0.01)
        double.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield double
    finally:
        server.should_exit = server.force_exit = True
        await task
