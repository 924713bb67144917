"""`native demo`: a walk through everything against a running stack, with real data."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import websockets
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from native.errors import DemoError

SYMBOLS = ("AAPL", "MSFT", "IBM", "GOOG")
_BLOCKS = "▁▂▃▄▅▆▇█"
_STREAM_S = 5.0
_ENDED = ("completed", "failed", "cancelled", "expired")
_BATCH_ITEMS = 2_000
_PATIENCE_S = 30.0

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Tour:
    """The stack that is walked through, and the console to which the walk is told."""

    api: httpx.AsyncClient
    mailbox: httpx.AsyncClient
    key: str
    console: Console
    # Every run has its own addresses and rooms, so that what it sees is its own.
    run: str = field(default_factory=lambda: secrets.token_hex(3))

    def say(self, text: str) -> None:
        """Print one line below the title of a step."""
        self.console.print(f"   {text}", highlight=False, markup=False, soft_wrap=True)

    async def get(self, path: str, **parameters: str) -> Json:
        """Return the JSON answer of a GET."""
        return _answer(await self.api.get(path, params=parameters))

    async def post(self, path: str, body: Json) -> Json:
        """Return the JSON answer of a POST."""
        return _answer(await self.api.post(path, json=body))

    def progress(self, unit: str, *, is_endless: bool = False) -> Progress:
        """Return a progress bar that counts `unit`."""
        columns = (
            TextColumn("  "),
            BarColumn(40),
            TextColumn("{task.completed}") if is_endless else MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
        )
        return Progress(*columns, console=self.console)

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[websockets.ClientConnection]:
        """Open the realtime connection."""
        address = str(self.api.base_url).rstrip("/").replace("http", "ws", 1) + "/v1/realtime"
        async with websockets.connect(address, proxy=None) as connection:
            await connection.send(json.dumps({"id": 1, "connect": {"token": self.key}}))
            await _frame(connection, "connect")
            yield connection


async def walk(*, url: str, mailbox_url: str, key: str, console: Console) -> int:
    """Do every step; return how many failed."""
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        httpx.AsyncClient(base_url=url, headers=headers, timeout=_PATIENCE_S, trust_env=False) as api,
        httpx.AsyncClient(base_url=mailbox_url, timeout=_PATIENCE_S, trust_env=False) as mailbox,
    ):
        tour = Tour(api=api, mailbox=mailbox, key=key, console=console)
        failed = sum([not await _step(tour, number, *step) for number, step in enumerate(STEPS, start=1)])
        console.print(f"\n Look at: the mails on {mailbox_url} · make status\n")
    return failed


async def quotes(tour: Tour) -> None:
    """One call, several symbols: each price says where it comes from and how old it is."""
    answer = await tour.get("/v1/stocks", symbols=",".join(SYMBOLS))
    table = Table("symbol", "price", "change", "source", "as of", box=None, padding=(0, 2, 0, 3))
    for quote in answer["quotes"]:
        change = f"{float(quote['change_percent'] or 0):+.2f} %"
        table.add_row(quote["symbol"], str(quote["price"]), change, quote["source"], quote["as_of"][:19])
    tour.console.print(table)


async def bars(tour: Tour) -> None:
    """Daily history, adjusted for splits; the rows are real."""
    answer = await tour.get(
        "/v1/stocks/AAPL/bars", start="2004-06-01", end="2006-06-01", adjustment="split", limit="1000"
    )
    closes = [float(bar["c"]) for bar in answer["data"]]
    if not closes:
        raise DemoError("no bars in the answer")
    tour.say(f"AAPL {answer['data'][0]['t'][:10]} … {answer['data'][-1]['t'][:10]}, {len(closes)} days")
    tour.say(f"{sparkline(closes, width=60)}  {min(closes):.2f} … {max(closes):.2f}")


async def stream(tour: Tour) -> None:
    """Prices pushed over one WebSocket, for a few seconds."""
    seen = 0
    async with tour.socket() as connection:
        for number, symbol in enumerate(SYMBOLS, start=2):
            await connection.send(json.dumps({"id": number, "subscribe": {"channel": f"quotes:{symbol}"}}))
        ends = time.monotonic() + _STREAM_S
        with tour.progress("pushes", is_endless=True) as progress:
            task = progress.add_task("", total=None)
            while (left := ends - time.monotonic()) > 0:
                seen += await _pushes(connection, left)
                progress.update(task, completed=seen)
    if not seen:
        raise DemoError("no price was pushed")


async def live_bars(tour: Tour) -> None:
    """The bar of the current minute, as it grows with every tick."""
    async with tour.socket() as connection:
        await connection.send(json.dumps({"id": 2, "subscribe": {"channel": "bars:AAPL"}}))
        await _frame(connection, "subscribe")
        for _ in range(3):
            bar = (await _frame(connection, "push"))["pub"]["data"]
            marks = "".join(f", {mark}" for mark in ("closed", "partial") if bar[mark])
            tour.say(
                f"{bar['symbol']} {bar['t'][11:16]} open {bar['o']} high {bar['h']} low {bar['l']} "
                f"close {bar['c']}, {bar['ticks']} ticks, {bar['state']}{marks}"
            )


async def mail(tour: Tour) -> None:
    """A mail is accepted at once, delivered behind the queue, and its way can be read."""
    address = f"you+{tour.run}@example.org"
    body = {
        "from": "tour@example.org",
        "to": [address],
        "subject": f"Your tour {tour.run}",
        "text": "This mail went through the gateway, RabbitMQ, the e-mail service and SMTP.",
        "html": "<h1>Hello</h1><p>From the gateway over RabbitMQ to the e-mail service and SMTP.</p>",
    }
    began = time.monotonic()
    accepted = await tour.post("/v1/emails", body)
    tour.say(f"accepted as {accepted['id']} after {(time.monotonic() - began) * 1000:.0f} ms")
    await _arrived(tour, address, began, identifier=accepted["id"])

    async def recorded() -> Json | None:
        found = await tour.get(f"/v1/emails/{accepted['id']}")
        return found if found["status"] == "delivered" else None

    timeline = (await _until(recorded))["timeline"]
    tour.say("its timeline: " + " → ".join(event["detail"] or event["kind"] for event in timeline))


async def alert(tour: Tour) -> None:
    """Two price alerts, one over and one under the price of now: the next move fires one of them."""
    address = f"alerts+{tour.run}@example.org"
    price = (await tour.get("/v1/stocks/AAPL"))["price"]
    async with tour.socket() as connection:
        await connection.send(json.dumps({"id": 2, "subscribe": {"channel": "alerts"}}))
        await _frame(connection, "subscribe")
        began = time.monotonic()
        made = []
        for condition in ("above", "below"):
            wish = {"symbol": "AAPL", "condition": {condition: price}, "notify": [{"email": address}]}
            made.append((await tour.post("/v1/alerts", wish))["id"])
        fired: Json = {}
        while fired.get("alert_id") not in made:
            fired = (await _frame(connection, "push"))["pub"]["data"]
    tour.say(f"heard: {fired['symbol']} {fired['condition']} at {fired['price']}")
    for alert_id in made:
        await tour.api.delete(f"/v1/alerts/{alert_id}")
    await _arrived(tour, address, began)


async def task(tour: Tour) -> None:
    """One item, one result."""
    accepted = await tour.post("/v1/tasks", {"operation": "echo", "payload": {"say": "hello"}})
    state = await _until(lambda: _ended(tour, f"/v1/tasks/{accepted['id']}"))
    tour.say(f"{state['status']}: {state['result']}")


async def steering(tour: Tour) -> None:
    """A task for later: joined by its key, paused, moved to now, resumed, and followed by another."""
    body = {
        "operation": "echo",
        "payload": {"say": "later"},
        "delay_s": 3600,
        "unique": {"key": f"demo {tour.run}"},
        "on_finished": {"operation": "echo", "payload": {"say": "afterwards"}},
    }
    first, second = [await tour.post("/v1/tasks", body) for _ in range(2)]
    if first["id"] != second["id"]:
        raise DemoError("two tasks hold one unique key")
    path = f"/v1/tasks/{first['id']}"

    async def in_state(status: str) -> Json | None:
        state = await tour.get(path)
        return state if state["counts"] and state["status"] == status else None

    await _until(lambda: in_state("queued"))
    _answer(await tour.api.post(f"{path}/pause"))
    await _until(lambda: in_state("paused"))
    _answer(await tour.api.patch(path, json={"run_at": datetime.now(UTC).isoformat()}))
    _answer(await tour.api.post(f"{path}/resume"))
    state = await _until(lambda: _ended(tour, path))
    tour.say(f"{state['status']}: {state['result']}, an hour before its time")

    async def followed() -> Json | None:
        found = (await tour.get("/v1/tasks", limit="20"))["data"]
        of_this = [one for one in found if one["metadata"].get("finished_id") == first["id"]]
        return of_this[0] if of_this and of_this[0]["status"] in _ENDED else None

    follower = await _until(followed)
    tour.say(f"{follower['status']}: {follower['result']}")


async def indicators(tour: Tour) -> None:
    """Moving average and relative strength, computed on thirteen years of closes in other processes."""
    items = [{"symbol": symbol, "indicators": ["sma:20", "rsi:14"]} for symbol in ("AAPL", "IBM", "MSFT")]
    accepted = await tour.post("/v1/batches", {"operation": "stock.indicators", "items": items})
    await _until(lambda: _ended(tour, f"/v1/batches/{accepted['id']}"))
    for row in (await tour.get(f"/v1/batches/{accepted['id']}/results"))["data"]:
        values = {name: found["value"] for name, found in row["result"]["values"].items()}
        tour.say(f"{row['result']['symbol']} on {row['result']['as_of']}: {values}")


async def overview(tour: Tour) -> None:
    """Quotes, batches and mails of this key, gathered in parallel."""
    whole = await tour.get("/v1/overview", symbols="AAPL,IBM")
    prices = {quote["symbol"]: quote["price"] for quote in whole["stocks"]["quotes"]}
    tour.say(f"prices {prices}, batches {whole['batches']}, mails {whole['emails']}")


async def batch(tour: Tour) -> None:
    """Thousands of items in one call, each with a durable result."""
    items = [{"number": number} for number in range(_BATCH_ITEMS)]
    accepted = await tour.post("/v1/batches", {"operation": "echo", "items": items})
    with tour.progress("items") as progress:
        task = progress.add_task("", total=_BATCH_ITEMS)
        state = await _until(
            lambda: _finished(tour, accepted["id"], lambda n: progress.update(task, completed=n))
        )
    if state["status"] != "completed":
        raise DemoError(f"the batch ended as {state['status']}")


async def chat(tour: Tour) -> None:
    """One connection speaks, another hears it, in order."""
    async with tour.socket() as hearer, tour.socket() as speaker:
        await hearer.send(json.dumps({"id": 2, "subscribe": {"channel": "chat:lobby"}}))
        await _frame(hearer, "subscribe")
        for number in range(3):
            line = {"channel": "chat:lobby", "data": {"text": f"hello {number} from tour {tour.run}"}}
            await speaker.send(json.dumps({"id": 10 + number, "publish": line}))
        for _ in range(3):
            push = await _frame(hearer, "push")
            tour.say(f"heard: {push['pub']['data']['text']}")


STEPS: tuple[tuple[str, Callable[[Tour], Awaitable[None]]], ...] = (
    ("Quotes", quotes),
    ("History", bars),
    ("A stream", stream),
    ("A bar", live_bars),
    ("A mail", mail),
    ("A price alert", alert),
    ("A task", task),
    ("A task for later", steering),
    ("A batch", batch),
    ("Indicators", indicators),
    ("Chat", chat),
    ("Overview", overview),
)


def sparkline(values: list[float], *, width: int) -> str:
    """Return the course of `values` as a line of blocks of at most `width` characters."""
    step = max(1, len(values) // width)
    shown = values[::step][:width]
    low, spread = min(shown), (max(shown) - min(shown)) or 1.0
    return "".join(_BLOCKS[int((value - low) / spread * (len(_BLOCKS) - 1))] for value in shown)


async def _step(tour: Tour, number: int, title: str, act: Callable[[Tour], Awaitable[None]]) -> bool:
    tour.console.print(f"\n[bold] {number}. {title}[/bold] — {(act.__doc__ or '').strip()}")
    try:
        await asyncio.wait_for(act(tour), 2 * _PATIENCE_S)
    except (DemoError, httpx.HTTPError, OSError, websockets.WebSocketException, TimeoutError) as error:
        tour.console.print(
            f"   [red]did not work:[/red] {str(error) or type(error).__name__}", highlight=False
        )
        return False
    return True


async def _arrived(tour: Tour, address: str, began: float, *, identifier: str = "") -> None:
    async def look() -> Json | None:
        if identifier:
            await _not_failed(tour, identifier)
        found = (await tour.mailbox.get("/api/v1/search", params={"query": f"to:{address}"})).json()
        return dict(found["messages"][0]) if found["messages"] else None

    message = await _until(look)
    tour.say(
        f"arrived after {(time.monotonic() - began) * 1000:.0f} ms: “{message['Subject']}” for {address}"
    )


async def _not_failed(tour: Tour, identifier: str) -> None:
    message = await tour.get(f"/v1/emails/{identifier}")
    if message["status"] == "failed":
        attempts = [attempt for recipient in message["recipients"] for attempt in recipient["attempts"]]
        raise DemoError(f"the mail failed: {attempts[-1]['smtp_reply'] if attempts else 'no attempt'}")


async def _finished(tour: Tour, identifier: str, show: Callable[[int], None]) -> Json | None:
    state = await tour.get(f"/v1/batches/{identifier}")
    show(int((state.get("counts") or {}).get("succeeded", 0)))
    return state if state["status"] in _ENDED else None


async def _ended(tour: Tour, path: str) -> Json | None:
    state = await tour.get(path)
    return state if state["status"] in _ENDED else None


async def _until(ask: Callable[[], Awaitable[Json | None]]) -> Json:
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            if (answer := await ask()) is not None:
                return answer
            await asyncio.sleep(0.1)


async def _pushes(connection: websockets.ClientConnection, timeout_s: float) -> int:
    try:
        frame = json.loads(await asyncio.wait_for(connection.recv(), timeout_s))
    except TimeoutError:
        return 0
    return 1 if "push" in frame else 0


async def _frame(connection: websockets.ClientConnection, kind: str) -> Json:
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            frame = json.loads(await connection.recv())
            if "error" in frame:
                raise DemoError(f"{frame['error'].get('code')}: {frame['error'].get('message')}")
            if kind in frame:
                return dict(frame[kind])


def _answer(response: httpx.Response) -> Json:
    if response.is_success:
        return dict(response.json())
    problem = response.json() if "json" in response.headers.get("content-type", "") else {}
    detail = problem.get("detail") or response.text[:200]
    raise DemoError(
        f"{response.request.method} {response.request.url.path}: HTTP {response.status_code} {detail}"
    )
