"""memcached: small shared values. A cache that is away is a slower answer, never an error."""

from __future__ import annotations

import asyncio
import time

import memcachio
from memcachio.errors import MemcachedError

from chassis import logging, metrics, redaction

log = logging.get(__name__)

_AWAY = (OSError, MemcachedError, TimeoutError)


class Cache:
    """Values by key under one name. After a failure it is left alone for `pause_s` seconds."""

    def __init__(self, address: str, *, name: str, timeout_s: float = 0.25, pause_s: float = 1) -> None:
        host, _, port = address.rpartition(":")
        self._client = memcachio.Client[bytes](
            (host, int(port)),
            connect_timeout=timeout_s,
            read_timeout=timeout_s,
            max_connections=4,
            decode_responses=False,
        )
        self._name = name
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._away_until = 0.0

    async def get(self, key: str) -> bytes | None:
        """Return the value of `key`, or None when there is none or the cache is away."""
        if self._is_away():
            return None
        full = self._key(key)
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await self._client.get(full)
        except _AWAY as error:
            self._fail(error)
            return None
        item = found.get(full)
        metrics.CACHE_READS.labels(self._name, "hit" if item else "miss").inc()
        return item.value if item else None

    async def set(self, key: str, value: bytes, *, ttl_s: int) -> None:
        """Keep `value` for at most `ttl_s` seconds."""
        if self._is_away():
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._client.set(self._key(key), value, expiry=ttl_s)
        except _AWAY as error:
            self._fail(error)

    async def delete(self, key: str) -> None:
        """Forget `key`. When the cache is away the value stays until its time is over."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._client.delete(self._key(key))
        except _AWAY as error:
            self._fail(error)

    def _key(self, key: str) -> bytes:
        return f"{self._name}:{key}".encode()

    def _is_away(self) -> bool:
        return time.monotonic() < self._away_until

    def _fail(self, error: BaseException) -> None:
        metrics.CACHE_READS.labels(self._name, "error").inc()
        if not self._is_away():
            log.warning("cache is away", cache=self._name, reason=redaction.safe_message(error))
        self._away_until = time.monotonic() + self._pause_s
