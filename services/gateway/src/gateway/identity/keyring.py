"""Authentication: from the text of a key to who is calling, without a query for each request."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

from chassis import logging, metrics
from chassis.errors import DatabaseUnavailable, Overloaded, Unauthenticated
from chassis.postgres import Postgres
from gateway.errors import TooManyFailures
from gateway.http.principal import Principal
from gateway.identity import keys
from gateway.identity.failures import FailureLimit
from gateway.identity.keys import ApiKey
from gateway.identity.repository import KeyRepository, UsableKey

log = logging.get(__name__)

V = TypeVar("V")

_FRESH_S = 5.0
_USABLE_S = 900.0
_MOST_KNOWN = 10_000
_MOST_REFUSED = 1000
_LONGEST = 128
_TOUCH_EVERY_S = 30.0
_PAUSE_S = 2.0
# Keys that were not seen lately: how many are looked up at a time, and how many wait for that. The
# connections of the pool are for those who have said who they are.
_STRANGERS = 3
_MOST_WAITING = 1000
_FAILURES, _FAILURE_EVERY_S = 20, 3.0

_REALM = 'Bearer realm="tickwire"'


@dataclass(frozen=True, slots=True)
class _Known:
    """The database's word on a key, and the time at which it was read."""

    principal: Principal
    read_at: float


class KeyRing:
    """Remembers for 5 seconds what the database said of a key: so long a change may take to have effect.

    While the database is away, a key that was good within the last 15 minutes stays good: reads of pushed
    quotes must not fail because of it. Keys that are not good are remembered apart, so that no number of
    them pushes a good one out.
    """

    def __init__(self, postgres: Postgres, repository: KeyRepository, pepper: str) -> None:
        self._postgres = postgres
        self._repository = repository
        self._pepper = pepper
        # Keyed by a hash: the memory of this process holds no usable key.
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._failures = FailureLimit(burst=_FAILURES, refill_s=_FAILURE_EVERY_S)
        self._strangers = asyncio.Semaphore(_STRANGERS)
        self._waiting = 0
        self._used: dict[str, datetime] = {}
        # While the database is away: when it is asked again, by one request and not by all.
        self._ask_at = 0.0

    async def authenticate(self, text: str | None, address: str | None = None) -> Principal:
        """Return who has the key `text`, which came from `address`.

        Raise `Unauthenticated` when it is missing, malformed or not good, `TooManyFailures` when it is not
        known here and too many keys from the address were not good.
        """
        if not text:
            raise _refusal("missing", "Send your API key as 'Authorization: Bearer tw_live_…'.", error=False)
        if len(text) > _LONGEST:
            raise _refusal("malformed", "The credential is not an API key.")
        fingerprint = hashlib.sha256(text.encode()).digest()
        known = self._known.get(fingerprint)
        if known is None or time.monotonic() - known.read_at > _FRESH_S:
            known = await self._read(text, fingerprint, known, address)
        ends_at = known.principal.expires_at
        if ends_at is not None and ends_at <= datetime.now(UTC):
            raise _refusal("expired", "The API key has expired.")
        return known.principal

    async def current(self, key_ids: Collection[str]) -> dict[str, Principal]:
        """Return the present rights of those keys that may still be used, in one query for all of them.

        For connections that outlive a request: what is missing from the answer has been revoked, has expired,
        or belongs to a disabled user. Raise `DatabaseUnavailable` when nothing can be said.
        """
        async with self._postgres.connection() as connection:
            found = await self._repository.find_usable(connection, key_ids)
        now = datetime.now(UTC)
        self._used.update(dict.fromkeys(found, now))
        return {key_id: usable.principal for key_id, usable in found.items()}

    async def find_principal(self, key_id: str) -> Principal | None:
        """Return the owner of a key with its present rights; None when it may not be used any more."""
        return (await self.current([key_id])).get(key_id)

    async def forget(self) -> None:
        """Ask the database again for every key; after a change of keys or users on this gateway."""
        self._known.clear()
        self._refused.clear()

    async def note_use(self) -> None:
        """Write when keys were last used, every 30 seconds, for ever."""
        while True:
            await asyncio.sleep(_TOUCH_EVERY_S)
            used, self._used = self._used, {}
            if not used:
                continue
            try:
                await self.write_use(used)
            except DatabaseUnavailable as error:
                log.warning("last use of keys not written", reason=error.detail)

    async def write_use(self, used: Mapping[str, datetime]) -> None:
        """Write when keys were last used, by their ids."""
        async with self._postgres.connection() as connection:
            await self._repository.touch(connection, used)

    async def _read(self, text: str, fingerprint: bytes, last: _Known | None, address: str | None) -> _Known:
        """Return what the database says of a key now, or said lately where it is away."""
        if last is None or time.monotonic() - last.read_at > _USABLE_S:
            return await self._read_unknown(text, fingerprint, address)
        if not self._may_ask():
            return last
        try:
            return await self._look_up(keys.parse(text), fingerprint)
        except DatabaseUnavailable:
            self._ask_at = time.monotonic() + _PAUSE_S
            return last

    async def _read_unknown(self, text: str, fingerprint: bytes, address: str | None) -> _Known:
        key = keys.parse(text)
        if key is None:
            raise _refusal("malformed", "The credential is not an API key, or a character of it is wrong.")
        if time.monotonic() - self._refused.get(fingerprint, -_FRESH_S) < _FRESH_S:
            raise unknown_key()
        if self._waiting >= _MOST_WAITING:
            raise Overloaded("Too many API keys are being checked; try again in a moment.", retry_after_s=1)
        self._waiting += 1
        try:
            async with self._strangers:
                # Only now: those in front of this one may have used up what the address may try.
                self._require_few_failures(address)
                return await self._look_up(key, fingerprint)
        except Unauthenticated:
            if address is not None:
                self._failures.count(address)
            raise
        finally:
            self._waiting -= 1

    def _require_few_failures(self, address: str | None) -> None:
        wait_s = 0 if address is None else self._failures.wait_s(address)
        if wait_s:
            metrics.AUTH_FAILURES.labels("limited").inc()
            raise TooManyFailures(
                "Too many invalid API keys came from this address; keys that were used lately go on working.",
                retry_after_s=wait_s,
            )

    def _may_ask(self) -> bool:
        now = time.monotonic()
        if now < self._ask_at:
            return False
        if self._ask_at:
            self._ask_at = now + _PAUSE_S
        return True

    async def _look_up(self, key: ApiKey | None, fingerprint: bytes) -> _Known:
        assert key is not None, "only texts that are keys are remembered"
        asked_at = time.monotonic()
        async with self._postgres.connection() as connection:
            usable = (await self._repository.find_usable(connection, [key.id])).get(key.id)
        self._ask_at = 0.0
        known = None if usable is None else self._proven(key, usable, asked_at)
        if known is None:
            self._known.pop(fingerprint, None)
            _remember(self._refused, fingerprint, asked_at, most=_MOST_REFUSED)
            raise unknown_key()
        _remember(self._known, fingerprint, known, most=_MOST_KNOWN)
        self._used[key.id] = datetime.now(UTC)
        return known

    def _proven(self, key: ApiKey, usable: UsableKey, asked_at: float) -> _Known | None:
        """Return the owner of a key whose secret is right: the present one, or one that a rotation left.

        The rights of a secret that was rotated away end with the overlap, and so does whatever they make.
        """
        digest, principal = keys.digest(self._pepper, key), usable.principal
        if hmac.compare_digest(digest, usable.digest):
            return _Known(principal, asked_at)
        until = usable.previous_until
        if until is None or usable.previous is None or not hmac.compare_digest(digest, usable.previous):
            return None
        if until <= datetime.now(UTC):
            return None
        ends_at = until if principal.expires_at is None else min(until, principal.expires_at)
        return _Known(replace(principal, expires_at=ends_at), asked_at)


def _remember(kept: OrderedDict[bytes, V], fingerprint: bytes, value: V, *, most: int) -> None:
    kept[fingerprint] = value
    kept.move_to_end(fingerprint)
    if len(kept) > most:
        kept.popitem(last=False)


def unknown_key() -> Unauthenticated:
    """Return the error of a key that may not be used."""
    return _refusal("unknown", "The API key is not known, has expired or was revoked.")


def _refusal(reason: str, detail: str, *, error: bool = True) -> Unauthenticated:
    """Return the error with the challenge of RFC 6750, which names no error where no credential was sent."""
    metrics.AUTH_FAILURES.labels(reason).inc()
    cause = f', error="invalid_token", error_description="{detail}"' if error else ""
    return Unauthenticated(detail, headers={"www-authenticate": _REALM + cause})
