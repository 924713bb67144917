"""Quotes, history, streams and price alerts."""

from __future__ import annotations

import asyncio
import json
import time

import websockets
from rich.table import Table

from native.demo.mails import arrived
from native.demo.tour import Json, Tour, frame
from native.errors import DemoError

SYMBOLS = ("AAPL", "MSFT", "IBM", "GOOG")
_BLOCKS = "▁▂▃▄▅▆▇█"
_STREAM_S = 5.0


async def quotes(tour: Tour) -> None:
    """One call for several symbols: each price has its source and its age."""
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
        await frame(connection, "subscribe")
        for _ in range(3):
            bar = (await frame(connection, "push"))["pub"]["data"]
            marks = "".join(f", {mark}" for mark in ("closed", "partial") if bar[mark])
            tour.say(
                f"{bar['symbol']} {bar['t'][11:16]} open {bar['o']} high {bar['h']} low {bar['l']} "
                f"close {bar['c']}, {bar['ticks']} ticks, {bar['state']}{marks}"
            )


async def alert(tour: Tour) -> None:
    """Two price alerts, one above and one below the current price: the next move fires one of them."""
    address = f"alerts+{tour.run}@example.org"
    price = (await tour.get("/v1/stocks/AAPL"))["price"]
    async with tour.socket() as connection:
        await connection.send(json.dumps({"id": 2, "subscribe": {"channel": "alerts"}}))
        await frame(connection, "subscribe")
        began = time.monotonic()
        made = []
        for condition in ("above", "below"):
            wish = {"symbol": "AAPL", "condition": {condition: price}, "notify": [{"email": address}]}
            made.append((await tour.post("/v1/alerts", wish))["id"])
        fired: Json = {}
        while fired.get("alert_id") not in made:
            fired = (await frame(connection, "push"))["pub"]["data"]
    tour.say(f"heard: {fired['symbol']} {fired['condition']} at {fired['price']}")
    for alert_id in made:
        await tour.api.delete(f"/v1/alerts/{alert_id}")
    await arrived(tour, address, began)


async def overview(tour: Tour) -> None:
    """Quotes, batches and mails of this key, gathered in parallel."""
    whole = await tour.get("/v1/overview", symbols="AAPL,IBM")
    prices = {quote["symbol"]: quote["price"] for quote in whole["stocks"]["quotes"]}
    tour.say(f"prices {prices}, batches {whole['batches']}, mails {whole['emails']}")


def sparkline(values: list[float], *, width: int) -> str:
    """Return `values` as a sparkline of at most `width` characters."""
    step = max(1, len(values) // width)
    shown = values[::step][:width]
    low, spread = min(shown), (max(shown) - min(shown)) or 1.0
    return "".join(_BLOCKS[int((value - low) / spread * (len(_BLOCKS) - 1))] for value in shown)


async def _pushes(connection: websockets.ClientConnection, timeout_s: float) -> int:
    try:
        async with asyncio.timeout(timeout_s):
            frame = json.loads(await connection.recv())
    except TimeoutError:
        return 0
    return 1 if "push" in frame else 0
