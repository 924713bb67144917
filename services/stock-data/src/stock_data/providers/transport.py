"""HTTP to an upstream: bounded in time and size, retried where that can help, with common errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import stamina

from chassis import redaction, spans
from chassis.deadlines import Deadline
from chassis.turns import OwnerTurns
from stock_data.errors import (
    AuthFailed,
    BadData,
    Blocked,
    NotEntitled,
    QuotaExceeded,
    ShareUsedUp,
    UpstreamDown,
)
from stock_data.providers.budget import Budget, callers, sharing

MOST_BYTES = 8 << 20
_MOST_ERROR_BYTES = 16 << 10
_ATTEMPTS = 3
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5
_TEXT_LENGTH = 200
_DEFAULT_RESET_S = 30.0
# Connections that are never lent to owners: what several owners ask for together has them to itself.
_RESERVED = 2
# A call that waits for others of its owner gives up this long before its deadline: at the deadline, the guard
# would count it as an outage.
_BEFORE_DEADLINE_S = 0.1
# Calls of one owner that wait for a connection.
_MOST_WAITING = 100
# The format of `zlib` with the header of gzip.
_GZIP = 31


class RequestRejected(BadData):
    """The upstream rejects this request (400, 404, 422); the meaning depends on the upstream."""

    code = "provider-refused"


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> str:
        """The upstream's own description of the error."""
        try:
            found = json.loads(self.body[:_MOST_ERROR_BYTES])
        except (ValueError, RecursionError):
            return f"status {self.status}"
        text = found.get("message") or found.get("error") if isinstance(found, dict) else None
        # Some upstreams repeat the key that they reject.
        return redaction.text(str(text or f"status {self.status}"))[:_TEXT_LENGTH]

    @property
    def reset_s(self) -> float:
        """Seconds until the rate limit resets: by `X-RateLimit-Reset` (Unix time), else by `Retry-After`."""
        try:
            if "x-ratelimit-reset" in self.headers:
                left_s = float(self.headers["x-ratelimit-reset"]) - time.time()
            else:
                left_s = float(self.headers["retry-after"])
        except (KeyError, ValueError):
            return _DEFAULT_RESET_S
        return max(1.0, left_s) if math.isfinite(left_s) else _DEFAULT_RESET_S

    def require_success(self, name: str) -> None:
        """Raise the matching `ProviderFailure` unless the status is 200 and the body can be JSON."""
        if self.status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise UpstreamDown(f"{name} fails with status {self.status}.")
        is_page = "html" in self.headers.get("content-type", "") or self.body.lstrip()[:1] == b"<"
        if is_page or httpx.codes.is_redirect(self.status):
            raise Blocked(f"{name} answers with an HTML page or a redirect (status {self.status}).")
        if self.status == httpx.codes.OK:
            return
        said = f"{name} says: {self.message}"
        if self.status == httpx.codes.TOO_MANY_REQUESTS:
            raise QuotaExceeded(said, retry_after_s=self.reset_s)
        if self.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise (NotEntitled if "subscription" in self.message.lower() else AuthFailed)(said)
        raise RequestRejected(said)


class Transport:
    """GETs of JSON from one upstream. Redirects are not followed: an API that redirects is intercepted."""

    def __init__(
        self, name: str, base_url: str, *, headers: Mapping[str, str], timeout_s: float, connections: int = 10
    ) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self.budget = Budget(name)
        lent = max(1, connections - _RESERVED)
        self._turns = OwnerTurns(most=lent, of_owner=lent, most_waiting=_MOST_WAITING, leaves_room=True)
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers={**headers, "accept": "application/json", "accept-encoding": "gzip"},
            timeout=httpx.Timeout(timeout_s, connect=min(2.0, timeout_s)),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            # Proxies and certificates of the environment are used, credentials of a ~/.netrc are not.
            auth=httpx.Auth(),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def get(
        self, path: str, query: Mapping[str, str], deadline: Deadline, *, most_bytes: int = MOST_BYTES
    ) -> bytes:
        """Return the body of a successful answer of up to `most_bytes`.

        Raise a `ProviderFailure`; an `UpstreamDown` is raised after up to three attempts. Each attempt counts
        in the share of its owner, unless several owners share the call, and so does its connection.
        """
        is_shared = sharing.get() is not None
        turn = contextlib.nullcontext() if is_shared else self._turns.turn(*callers())
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(max(0.0, deadline.remaining_s() - _BEFORE_DEADLINE_S)):
                    await stack.enter_async_context(turn)
            except TimeoutError:
                # The owner's own slow calls are no outage of the upstream.
                words = f"Your other requests to {self._name} were not answered in time."
                raise ShareUsedUp(words, retry_after_s=1) from None
            attempts = stamina.retry_context(
                on=UpstreamDown,
                attempts=_ATTEMPTS,
                timeout=deadline.remaining_s(),
                wait_initial=_FIRST_PAUSE_S,
                wait_max=_LONGEST_PAUSE_S,
                wait_jitter=_FIRST_PAUSE_S,
            )
            async for attempt in attempts:
                with attempt, self.budget.call():
                    response = await self._attempt(path, query, deadline, most_bytes)
                    response.require_success(self._name)
                    return response.body
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(
        self, path: str, query: Mapping[str, str], deadline: Deadline, most_bytes: int
    ) -> _Response:
        try:
            with spans.span(f"GET {self._name}", "client", {"url.path": path}):
                async with asyncio.timeout(min(self._timeout_s, deadline.remaining_s())):
                    return await self._fetch(path, query, most_bytes)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise UpstreamDown(f"{self._name} did not answer in time.") from error
        except zlib.error as error:
            raise BadData(f"The answer of {self._name} cannot be unpacked: {error}.") from error
        except httpx.HTTPError as error:
            raise UpstreamDown(
                f"{self._name} cannot be reached: {type(error).__name__} {error}"[:_TEXT_LENGTH]
            ) from error

    async def _fetch(self, path: str, query: Mapping[str, str], most_bytes: int) -> _Response:
        async with self._client.stream("GET", path, params=dict(query)) as response:
            body = bytearray()
            coding = response.headers.get("content-encoding", "identity").strip().lower()
            # Not by `httpx`: it unpacks whatever arrives, a thousand times its length at once.
            unpacker = zlib.decompressobj(wbits=_GZIP) if coding == "gzip" else None
            async for part in response.aiter_raw():
                body += unpacker.decompress(part, most_bytes + 1 - len(body)) if unpacker else part
                if len(body) > most_bytes:
                    # The traceback keeps this frame, and so the body, until it is garbage-collected.
                    body.clear()
                    raise BadData(f"The answer of {self._name} is longer than {most_bytes} bytes.")
        if coding not in ("gzip", "identity") or (unpacker and not unpacker.eof and body):
            raise BadData(f"The answer of {self._name} is not complete, or has an unknown coding.")
        self.budget.learn(response.headers)
        return _Response(response.status_code, response.headers, bytes(body))
