"""The public keys of the issuer of access tokens (RFC 7517), fetched over HTTP with limits."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import httpx
import jwt
import orjson

from chassis import logging, redaction
from chassis.errors import Unavailable
from gateway.http.outgoing import read_within

log = logging.get(__name__)

_DISCOVERY = "/.well-known/openid-configuration"
_LOOPBACK = re.compile(r"http://(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?(/.*)?", re.DOTALL)
_FRESH_S = 600.0
_USABLE_S = 24 * 3600.0
_COOLDOWN_S = 10.0
_FETCH_S = 3.0
_MOST_BYTES = 256 * 1024
_MOST_KEYS = 100
_MOST_WAITING = 500
_KINDS = ("RSA", "EC", "OKP")


def is_safe(url: str) -> bool:
    """Return whether keys may be fetched from `url`: nobody on the network path can change the response."""
    return url.startswith("https://") or _LOOPBACK.fullmatch(url) is not None


class IssuerKeys:
    """Caches the issuer's keys for ten minutes, and for a day while the issuer cannot be reached.

    An unknown key may be new: then all keys are fetched again, at most once in `cooldown_s` seconds, however
    many tokens name keys that do not exist.
    """

    def __init__(
        self,
        issuer: str,
        jwks_url: str | None = None,
        *,
        fresh_s: float = _FRESH_S,
        cooldown_s: float = _COOLDOWN_S,
        fetch_s: float = _FETCH_S,
    ) -> None:
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._fresh_s = fresh_s
        self._cooldown_s = cooldown_s
        self._fetch_s = fetch_s
        self._documents: dict[str | None, dict[str, Any]] = {}
        self._keys: dict[tuple[str | None, str], jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = -_USABLE_S
        self._fetching: asyncio.Task[None] | None = None
        self._waiting = 0
        # An issuer on this machine is reached without the proxy of the environment.
        self._client = httpx.AsyncClient(
            headers={"accept": "application/json"}, timeout=fetch_s, trust_env=issuer.startswith("https://")
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
        await self._client.aclose()

    async def find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """Return the key `key_id` for `algorithm`, or None if the issuer has none.

        A token without a key id is checked with the issuer's only key. Raise `Unavailable` when the issuer
        cannot be reached and its keys are not known.
        """
        now = time.monotonic()
        is_fresh = now - self._fetched_at < self._fresh_s
        if not (is_fresh and self._document(key_id)) and now - self._tried_at >= self._cooldown_s:
            await self._refresh()
        if time.monotonic() - self._fetched_at >= _USABLE_S:
            raise Unavailable(
                "The keys of the issuer of access tokens cannot be fetched; try again, or use an API key.",
                retry_after_s=int(self._cooldown_s) or 1,
            )
        document = self._document(key_id)
        if document is None or document.get("alg", algorithm) != algorithm:
            return None
        known = self._keys.get((key_id, algorithm))
        if known is None:
            try:
                known = self._keys[key_id, algorithm] = jwt.PyJWK(document, algorithm)
            except jwt.PyJWTError:
                # The key is of another type than the algorithm, so no signature of this token can be valid.
                return None
        return known

    def _document(self, key_id: str | None) -> dict[str, Any] | None:
        if key_id is None and len(self._documents) == 1:
            return next(iter(self._documents.values()))
        return self._documents.get(key_id)

    async def _refresh(self) -> None:
        """Fetch the keys, or wait until they are fetched. After a failure the cached keys stay.

        The keys are fetched to the end, even if nobody waits for them any more: clients that leave early
        could otherwise have them fetched again and again.
        """
        if self._waiting >= _MOST_WAITING:
            raise Unavailable(
                "Too many access tokens wait for the keys of their issuer; try again.", retry_after_s=1
            )
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch())
        self._waiting += 1
        try:
            await asyncio.shield(self._fetching)
        finally:
            self._waiting -= 1

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(self._fetch_s):
                self._documents, self._keys = await self._fetch_keys(), {}
            self._fetched_at = self._tried_at = time.monotonic()
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
            self._tried_at = time.monotonic()
            log.warning("keys of the issuer could not be fetched", reason=redaction.safe_message(error))

    async def _fetch_keys(self) -> dict[str | None, dict[str, Any]]:
        """Return the issuer's signing keys by id. Raise `ValueError` for anything unexpected."""
        url = self._jwks_url
        if url is None:
            about = await self._get(self._issuer.rstrip("/") + _DISCOVERY)
            url = about.get("jwks_uri")
            if about.get("issuer") != self._issuer or not isinstance(url, str) or not is_safe(url):
                raise ValueError("the discovery document is of another issuer, or has no safe jwks_uri")
        given = (await self._get(url)).get("keys")
        if not isinstance(given, list) or len(given) > _MOST_KEYS:
            raise ValueError(f"the key set has no list of at most {_MOST_KEYS} keys")
        # Symmetric keys are ignored: anybody could sign with one from a public document.
        usable = (
            key
            for key in given
            if isinstance(key, dict) and key.get("kty") in _KINDS and key.get("use", "sig") == "sig"
        )
        return {id_ if isinstance(id_ := key.get("kid"), str) else None: key for key in usable}

    async def _get(self, url: str) -> dict[str, Any]:
        async with self._client.stream("GET", url) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"the issuer answered with status {response.status_code}")
            body = await read_within(response, _MOST_BYTES)
        document = orjson.loads(body)
        if not isinstance(document, dict):
            raise ValueError("the issuer's response is not a JSON object")
        return document
