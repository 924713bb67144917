"""Readiness checks of starting processes, each with a description for people."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from native.errors import NotReadyError
from native.ports import HOST

_INTERVAL_S = 0.1
_ONE_CHECK_S = 5.0


@dataclass(frozen=True)
class Probe:
    """A readiness check: `what` describes it for people, `check` raises while it does not pass."""

    what: str
    check: Callable[[], Awaitable[None]]

    async def passed(self, *, timeout_s: float) -> None:
        """Return when the check passes; raise `NotReadyError` with the last reason after `timeout_s`."""
        reason = "no answer yet"
        deadline = asyncio.get_running_loop().time() + timeout_s
        while asyncio.get_running_loop().time() < deadline:
            try:
                async with asyncio.timeout(_ONE_CHECK_S):
                    return await self.check()
            except TimeoutError:
                reason = f"no answer in {_ONE_CHECK_S:.0f} s"
            except (NotReadyError, OSError) as error:
                reason = str(error)
            await asyncio.sleep(_INTERVAL_S)
        raise NotReadyError(reason)


def http(port: int, path: str) -> Probe:
    """Return the probe `GET http://127.0.0.1:<port><path>` → 200."""

    async def check() -> None:
        status, body = await http_get(port, path)
        if status != 200:
            raise NotReadyError(f"HTTP {status}: {body[:400]}")

    return Probe(f"GET http://{HOST}:{port}{path} answers 200", check)


def tcp(port: int, *, send: bytes = b"", expect: bytes = b"", what: str = "") -> Probe:
    """Return a probe that connects, sends `send` and expects an answer that starts with `expect`."""

    async def check() -> None:
        answer = await _exchange(port, send, wanted=len(expect))
        if not answer.startswith(expect):
            raise NotReadyError(f"unexpected answer {answer!r}")

    return Probe(what or f"TCP connection to {HOST}:{port}", check)


async def http_get(port: int, path: str, *, key: str | None = None) -> tuple[int, str]:
    """Return status and body of a plain GET, without an HTTP client, whose import would slow the start."""
    authorization = "" if key is None else f"Authorization: Bearer {key}\r\n"
    request = f"GET {path} HTTP/1.0\r\nHost: {HOST}:{port}\r\n{authorization}\r\n"
    answer = (await _exchange(port, request.encode(), wanted=-1)).decode(errors="replace")
    head, _, body = answer.partition("\r\n\r\n")
    words = head.split(" ", 2)
    if len(words) < 2 or not words[1].isdecimal():
        raise NotReadyError(f"not an HTTP answer: {answer[:80]!r}")
    return int(words[1]), body.strip()


async def _exchange(port: int, send: bytes, *, wanted: int) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(send)
        await writer.drain()
        if wanted == 0:
            return b""
        return await reader.read() if wanted < 0 else await reader.readexactly(wanted)
    except asyncio.IncompleteReadError as error:
        raise NotReadyError("connection closed before an answer") from error
    finally:
        writer.close()
