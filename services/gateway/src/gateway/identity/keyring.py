"""Authentication: from the text of a key to who is calling, without a query for each request."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime

from chassis import logging, metrics
from chassis.errors import DatabaseUnavailable, Unauthenticated
from gateway.http.principal import Principal
from gateway.identity import keys
from gateway.identity.repository import IdentityRepository

log = logging.get(__name__)

_FRESH_S = 5.0
_USABLE_S = 900.0
_MOST = 10_000
_TOUCH_EVERY_S = 30.0
_PAUSE_S = 2.0

_CHALLENGE = {"www-authenticate": 'Bearer realm="tickwire"'}


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal | None
    read_at: float


class KeyRing:
    """Remembers for 5 seconds what the database said of a key: so long a revoked key may still work.

    While the database is away, a key that was good within the last 15 minutes stays good: reads of pushed
    quotes must not fail because of it.
    """

    def __init__(self, repository: IdentityRepository, pepper: str) -> None:
        self._repository = repository
        self._pepper = pepper
        # Keyed by a hash: the memory of this process holds no usable key.
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._used: dict[str, datetime] = {}
        # While the database is away: when it is asked again, by one request and not by all.
        self._ask_at = 0.0

    async def authenticate(self, text: str | None) -> Principal:
        """Who has the key `text`. Raises `Unauthenticated` when it is missing, malformed or not good."""
        if not text:
            raise self._refuse("missing", "Send your API key as 'Authorization: Bearer tw_live_…'.")
        fingerprint = hashlib.sha256(text.encode()).digest()
        known = self._known.get(fingerprint)
        if known is None or time.monotonic() - known.read_at > _FRESH_S:
            known = await self._read(text, fingerprint, known)
        if known.principal is None:
            raise self._refuse("unknown", "The API key is not known, has expired or was revoked.")
        return known.principal

    async def find_principal(self, key_id: str) -> Principal | None:
        """Return the owner of a key with the rights of now; None when it may not be used any more."""
        found = await self._repository.find_key(key_id)
        return None if found is None else found[1]

    def forget(self) -> None:
        """Ask the database again for every key; after a change of keys on this gateway."""
        self._known.clear()

    async def note_use(self) -> None:
        """Write when keys were last used, every 30 seconds, for ever."""
        while True:
            await asyncio.sleep(_TOUCH_EVERY_S)
            used, self._used = self._used, {}
            if not used:
                continue
            try:
                await self._repository.touch_keys(used)
            except DatabaseUnavailable as error:
                log.warning("last use of keys not written", reason=error.detail)

    async def _read(self, text: str, fingerprint: bytes, last: _Known | None) -> _Known:
        usable = last if last is not None and time.monotonic() - last.read_at < _USABLE_S else None
        if usable is not None and not self._may_ask():
            return usable
        try:
            principal = await self._look_up(text)
        except DatabaseUnavailable:
            self._ask_at = time.monotonic() + _PAUSE_S
            if usable is None:
                raise
            return usable
        self._ask_at = 0.0
        known = _Known(principal, time.monotonic())
        self._known[fingerprint] = known
        self._known.move_to_end(fingerprint)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        return known

    def _may_ask(self) -> bool:
        now = time.monotonic()
        if now < self._ask_at:
            return False
        if self._ask_at:
            self._ask_at = now + _PAUSE_S
        return True

    async def _look_up(self, text: str) -> Principal | None:
        key = keys.parse(text)
        if key is None:
            return None
        found = await self._repository.find_key(key.id)
        if found is None or not hmac.compare_digest(found[0], keys.digest(self._pepper, key)):
            return None
        self._used[key.id] = datetime.now(UTC)
        return found[1]

    def _refuse(self, reason: str, detail: str) -> Unauthenticated:
        metrics.AUTH_FAILURES.labels(reason).inc()
        return Unauthenticated(detail, headers=_CHALLENGE)
