"""memcached: small values that replicas share. While it is down, answers are slower, but never errors."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping

import memcachio
from memcachio.errors import MemcachedError
from memcachio.pool import SingleServerPool

from chassis import logging, metrics, redaction

log = logging.get(__name__)

_AWAY = (OSError, MemcachedError, TimeoutError)
_SIGNATURE_BYTES = 32


class Cache:
    """Signed values by key under one name. After a failure the server is not asked for `pause_s` seconds.

    memcached has no authentication: whoever can reach it can write to it. Values that were not signed with
    `secret`, or were signed for another key, are ignored.
    """

    def __init__(
        self, address: str, *, name: str, secret: str, timeout_s: float = 0.1, pause_s: float = 1
    ) -> None:
        host, _, port = address.rpartition(":")
        self._pool = SingleServerPool(
            (host, int(port)), connect_timeout=timeout_s, read_timeout=timeout_s, max_connections=4
        )
        self._client = memcachio.Client[bytes](connection_pool=self._pool, decode_responses=False)
        self._name = name
        self._secret = hashlib.sha256(f"tickwire cache {name} {secret}".encode()).digest()
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._away_until = 0.0

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    async def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those of `keys` that have one; none while the cache is down."""
        by_full_key = {self._full(key): key for key in keys}
        if not by_full_key or self._is_away():
            return {}
        try:
            async with asyncio.timeout(self._timeout_s):
                items = await self._client.get(*by_full_key)
        except _AWAY as error:
            self._fail(error)
            return {}
        found: dict[str, bytes] = {}
        for full, key in by_full_key.items():
            signed = items[full].value if full in items else b""
            value = signed[_SIGNATURE_BYTES:]
            if signed and hmac.compare_digest(signed[:_SIGNATURE_BYTES], self._signature(full, value)):
                found[key] = value
            metrics.CACHE_READS.labels(
                self._name, "hit" if key in found else "forged" if signed else "miss"
            ).inc()
        return found

    async def set(self, values: Mapping[str, bytes], *, ttl_s: int) -> None:
        """Keep `values` for at most `ttl_s` seconds."""
        if not values or self._is_away():
            return
        full_keys = {self._full(key): value for key, value in values.items()}
        signed = {full: self._signature(full, value) + value for full, value in full_keys.items()}
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.gather(*(self._client.set(full, signed[full], expiry=ttl_s) for full in signed))
        except _AWAY as error:
            self._fail(error)

    def _full(self, key: str) -> bytes:
        return f"{self._name}:{key}".encode()

    def _signature(self, full: bytes, value: bytes) -> bytes:
        return hmac.digest(self._secret, b"%d:%b%b" % (len(full), full, value), "sha256")

    def _is_away(self) -> bool:
        return time.monotonic() < self._away_until

    def _fail(self, error: BaseException) -> None:
        metrics.CACHE_READS.labels(self._name, "error").inc()
        if not self._is_away():
            log.warning("cache unavailable", cache=self._name, reason=redaction.safe_message(error))
        self._away_until = time.monotonic() + self._pause_s
