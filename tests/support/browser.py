"""A real browser for the tests: Debian's Chromium without a window, driven by its DevTools protocol."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from support.waiting import until

PROGRAM = shutil.which("chromium")
# In CI its absence is a hole, and the test fails.
needed = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"),
    reason="chromium is missing: deploy/native/setup.sh --test installs it",
)

# Only a browser that hangs takes longer; opening all of the reference takes a busy one half of it.
_ANSWER_S = 60
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-port=0",
)


# What the browser answers to a question about a page that goes to another address meanwhile.
_LEFT = ("navigated or closed", "context was destroyed", "Cannot find context")


class PageLeft(Exception):
    """The page navigated to another address before it could answer."""


class BrowserTab:
    """One tab: go somewhere, run JavaScript in it, wait for what it shows."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.complaints: list[str] = []

    async def prepare(self) -> None:
        """Listen to the console, which also reports violations of the content security policy."""
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        number = next(self._ids)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        async with asyncio.timeout(_ANSWER_S):
            while True:
                message = json.loads(await self._socket.recv())
                self._note(message)
                if message.get("id") != number:
                    continue
                refusal = message.get("error", {}).get("message", "")
                if any(words in refusal for words in _LEFT):
                    raise PageLeft(refusal)
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    async def go(self, url: str) -> None:
        """Open an address and wait until its scripts have run."""
        await self.call("Page.navigate", url=url)
        await self.until(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    async def visit(self, url: str) -> None:
        """Open an address as on a first visit, with empty storage for this tab."""
        await self.go(url)
        await self.run("sessionStorage.clear()")
        await self.go("about:blank")
        await self.go(url)

    async def run(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        found = await self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, script: str, *, timeout_s: float = 30) -> Any:
        """Wait until an expression is true in the page, or in one that it navigates to; return its value."""

        async def found() -> Any:
            try:
                return await self.run(script)
            except PageLeft:
                return None

        return await until(found, timeout_s=timeout_s, what=lambda: script)

    async def text(self, selector: str = "body") -> str:
        """Return the text that is visible in an element."""
        return str(await self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    async def look_as(self, *, width: int, height: int, dark: bool = False) -> None:
        """Set the size of the window and the preferred colour scheme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    def _note(self, message: dict[str, Any]) -> None:
        about = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(about["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded" and about["entry"]["source"] == "security":
            self.complaints.append(about["entry"]["text"])


@asynccontextmanager
async def open_page(directory: Path) -> AsyncIterator[BrowserTab]:
    """Yield a browser with one empty tab and its profile in `directory`, until the end of the block."""
    assert PROGRAM is not None
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(directory)}
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *_FLAGS,
        f"--user-data-dir={directory}",
        "about:blank",
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with connect(await _address(directory), max_size=32 << 20, proxy=None) as socket:
            page = BrowserTab(socket)
            await page.prepare()
            yield page
            await page.call("Browser.close")
            await asyncio.wait_for(process.wait(), 10)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _address(directory: Path) -> str:
    """Return the address of the tab's debugger, whose port the browser writes into its profile."""
    note = directory / "DevToolsActivePort"
    await until(lambda: note.exists() and "\n" in note.read_text(), what=lambda: "the browser is up")
    port = note.read_text().split()[0]
    async with httpx.AsyncClient(trust_env=False) as client:
        tabs = (await client.get(f"http://127.0.0.1:{port}/json/list")).json()
    return str(next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"))
