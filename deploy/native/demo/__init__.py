"""`native demo`: a walk through everything against a running stack, with real data."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import websockets
from rich.console import Console

from native.demo import chat, mails, market, webhooks, work
from native.demo.tour import PATIENCE_S, Tour
from native.errors import DemoError

# A new capability adds its step here; the function of the step is in the module of its kind.
STEPS: tuple[tuple[str, Callable[[Tour], Awaitable[None]]], ...] = (
    ("Quotes", market.quotes),
    ("History", market.bars),
    ("A stream", market.stream),
    ("A bar", market.live_bars),
    ("A mail", mails.mail),
    ("An attachment", mails.attachment),
    ("A large attachment", mails.upload),
    ("A template", mails.template),
    ("A sender domain", mails.domain),
    ("A suppression", mails.suppression),
    ("A bounce", mails.bounce),
    ("A slow domain", mails.limit),
    ("A price alert", market.alert),
    ("A task", work.task),
    ("A task for later", work.steering),
    ("Many tasks at once", work.bulk),
    ("A batch", work.batch),
    ("A batch with a limit", work.limited),
    ("Indicators", work.indicators),
    ("A portfolio", work.valuation),
    ("A schedule", work.schedule),
    ("Chat", chat.lobby),
    ("A private room", chat.private_room),
    ("A webhook", webhooks.webhook),
    ("Overview", market.overview),
)


async def walk(
    *, url: str, mailbox_url: str, key: str, console: Console, receiver_port: int | None = None
) -> int:
    """Run every step; return how many failed.

    The gateway can reach a server of the demo on `receiver_port` of loopback, unless that is None.
    """
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE_S, trust_env=False) as api,
        httpx.AsyncClient(base_url=mailbox_url, timeout=PATIENCE_S, trust_env=False) as mailbox,
    ):
        tour = Tour(api=api, mailbox=mailbox, key=key, console=console, receiver_port=receiver_port)
        failed = sum([not await _step(tour, number, *step) for number, step in enumerate(STEPS, start=1)])
        console.print(f"\n Look at: the mails on {mailbox_url} · the services on {url}/console/status\n")
    return failed


async def _step(tour: Tour, number: int, title: str, act: Callable[[Tour], Awaitable[None]]) -> bool:
    tour.console.print(f"\n[bold] {number}. {title}[/bold] — {(act.__doc__ or '').strip()}")
    try:
        async with asyncio.timeout(2 * PATIENCE_S):
            await act(tour)
    except (DemoError, httpx.HTTPError, OSError, websockets.WebSocketException, TimeoutError) as error:
        tour.console.print(
            f"   [red]did not work:[/red] {str(error) or type(error).__name__}", highlight=False
        )
        return False
    return True
