"""HTTP to an upstream: bounded in time and size, retried where that can help, errors in one vocabulary."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import stamina

from chassis import metrics, redaction, spans
from chassis.deadlines import Deadline
from stock_data.errors import (
    AuthFailed,
    BadData,
    Blocked,
    NotEntitled,
    ProviderFailure,
    QuotaExceeded,
    UpstreamDown,
)

_MOST_BYTES = 8 << 20
_ATTEMPTS = 3
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5
_TEXT_LENGTH = 200
_DEFAULT_RESET_S = 30.0


class Refused(BadData):
    """The upstream refuses this very question (400, 404, 422); the provider knows what that means."""

    code = "provider-refused"
    title = "The provider refuses the question"


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_page(self) -> bool:
        """Whether this is a page for people instead of an answer."""
        content_type = self.headers.get("content-type", "")
        return "html" in content_type or self.body.lstrip()[:1] == b"<"

    @property
    def message(self) -> str:
        """What the upstream says of the error."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return f"status {self.status}"
        text = found.get("message") if isinstance(found, dict) else None
        # Some repeat the key that they refuse.
        return redaction.text(str(text or f"status {self.status}"))[:_TEXT_LENGTH]


class Transport:
    """GETs of JSON from one upstream. Redirects are not followed: an API that redirects is intercepted."""

    def __init__(
        self, name: str, base_url: str, *, headers: Mapping[str, str], timeout_s: float, connections: int = 10
    ) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers={**headers, "accept": "application/json"},
            timeout=httpx.Timeout(timeout_s, connect=min(2.0, timeout_s)),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            # Proxies and certificates of the environment count, a ~/.netrc with other credentials does not.
            auth=httpx.Auth(),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def get(self, path: str, query: Mapping[str, str], deadline: Deadline) -> bytes:
        """The body of a good answer.

        Raises a `ProviderFailure`; those of the kind `upstream_down` come after up to three attempts.
        """
        attempts = stamina.retry_context(
            on=UpstreamDown,
            attempts=_ATTEMPTS,
            timeout=deadline.remaining_s(),
            wait_initial=_FIRST_PAUSE_S,
            wait_max=_LONGEST_PAUSE_S,
            wait_jitter=_FIRST_PAUSE_S,
        )
        async for attempt in attempts:
            with attempt:
                response = await self._attempt(path, query, deadline)
                return self._body(response)
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, path: str, query: Mapping[str, str], deadline: Deadline) -> _Response:
        try:
            with spans.span(f"GET {self._name}", "client", {"url.path": path}):
                async with asyncio.timeout(min(self._timeout_s, deadline.remaining_s())):
                    return await self._fetch(path, query)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise UpstreamDown(f"{self._name} did not answer in time.") from error
        except httpx.HTTPError as error:
            raise UpstreamDown(
                f"{self._name} cannot be reached: {type(error).__name__} {error}"[:_TEXT_LENGTH]
            ) from error

    async def _fetch(self, path: str, query: Mapping[str, str]) -> _Response:
        async with self._client.stream("GET", path, params=dict(query)) as response:
            body = bytearray()
            async for part in response.aiter_bytes():
                body += part
                if len(body) > _MOST_BYTES:
                    raise BadData(f"{self._name} answers with more than {_MOST_BYTES} bytes.")
        self._note_quota(response.headers)
        return _Response(response.status_code, response.headers, bytes(body))

    def _note_quota(self, headers: Mapping[str, str]) -> None:
        remaining = headers.get("x-ratelimit-remaining", "")
        if remaining.isascii() and remaining.isdigit():
            metrics.PROVIDER_QUOTA.labels(self._name).set(int(remaining))

    def _body(self, response: _Response) -> bytes:
        status = response.status
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise UpstreamDown(f"{self._name} fails with status {status}.")
        if response.is_page or httpx.codes.is_redirect(status):
            raise Blocked(f"{self._name} answers with a page for people (status {status}).")
        if status != httpx.codes.OK:
            raise self._refusal(response)
        return response.body

    def _refusal(self, response: _Response) -> ProviderFailure:
        said = f"{self._name} says: {response.message}"
        if response.status == httpx.codes.TOO_MANY_REQUESTS:
            return QuotaExceeded(said, retry_after_s=_until_reset_s(response.headers))
        if response.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return (NotEntitled if "subscription" in response.message.lower() else AuthFailed)(said)
        return Refused(said)


def _until_reset_s(headers: Mapping[str, str]) -> float:
    """Seconds until the quota is filled again, by the upstream's own word where it makes sense."""
    try:
        return max(1.0, float(headers["x-ratelimit-reset"]) - time.time())
    except (KeyError, ValueError):
        return _DEFAULT_RESET_S
