"""Authentication: from the text of a key or token to the caller, without a query per request."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Collection, Coroutine, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from chassis import logging, metrics
from chassis.errors import DatabaseUnavailable, Unauthenticated
from chassis.places import Places
from chassis.postgres import Connection, Postgres
from chassis.turns import OwnerTurns
from gateway.errors import TooManyFailures
from gateway.http.principal import Principal
from gateway.identity import key_repository, keys
from gateway.identity.access_tokens import LONGEST as LONGEST_TOKEN
from gateway.identity.access_tokens import AccessTokens, Claims, is_token
from gateway.identity.failures import FailureLimit, network_of
from gateway.identity.key_repository import UsableKey
from gateway.identity.keys import ApiKey
from gateway.identity.known_callers import Known, KnownCallers
from gateway.identity.refreshes import Refreshes
from gateway.identity.refusals import Expired, RefusedAtSight, refusal, unknown_key
from gateway.identity.subjects import Subjects

log = logging.get(__name__)

_FRESH_S = 5.0
_USABLE_S = 900.0
_MOST_REFUSED = 1000
_LONGEST = 128
TOUCH_EVERY_S = 30.0
_PAUSE_S = 2.0
# How long a request waits for the database: with a cached key, and with any other one.
REFRESHED_WITHIN_S = 0.5
FOUND_WITHIN_S = 5.0
# The limits of concurrent look-ups of credentials that are not cached, of those of one address or subject of
# a token, and of requests that wait for one. Most connections of the pool are reserved for authenticated
# callers. Credentials that were valid before have as many of their own, in turns of their users.
_STRANGERS, _STRANGERS_OF_OWNER = 3, 2
_MOST_WAITING = 1000
_FAILURES, _FAILURE_EVERY_S = 20, 3.0


class KeyRing:
    """Caches the state of each key for 5 seconds, within which every change takes effect.

    While the database is down or slow, a key that was valid within the last 15 minutes stays valid: reads of
    pushed quotes must neither fail nor wait because of it. Invalid keys have a separate cache, so that they
    never displace valid ones. Access tokens of an issuer are treated alike: `tokens` verifies them, and
    `subjects` finds their users.
    """

    def __init__(
        self,
        postgres: Postgres,
        pepper: str,
        *,
        previous_pepper: str | None = None,
        tokens: AccessTokens | None = None,
        subjects: Subjects | None = None,
    ) -> None:
        self._postgres = postgres
        self._tokens = tokens
        self._subjects = subjects
        self._pepper = pepper
        self._previous_pepper = previous_pepper
        self._known = KnownCallers()
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._failures = FailureLimit(burst=_FAILURES, refill_s=_FAILURE_EVERY_S)
        self._strangers = OwnerTurns(
            most=_STRANGERS, of_owner=_STRANGERS_OF_OWNER, most_waiting=_MOST_WAITING
        )
        self._returning = OwnerTurns(
            most=_STRANGERS, of_owner=_STRANGERS_OF_OWNER, most_waiting=_MOST_WAITING
        )
        self._places = Places("unknown credentials", of_owner=_MOST_WAITING, most=_MOST_WAITING)
        # The number of changes of keys or users on this gateway.
        self._changes = 0
        self._used: dict[str, datetime] = {}
        # While the database is down: the time of the next query, which only one request makes. Tokens have a
        # time of their own: it may be their issuer that is slow.
        self._ask_at = {ApiKey: 0.0, Claims: 0.0}
        self._refreshes = Refreshes[Known]()

    async def authenticate(self, text: str | None, address: str | None = None) -> Principal:
        """Return the owner of the key `text`, sent from `address`.

        Raise `Unauthenticated` if it is missing, malformed or invalid, and `TooManyFailures` if it is not
        cached and too many keys from the address were invalid.
        """
        if not text:
            raise refusal("missing", "Send your API key as 'Authorization: Bearer tw_live_…'.", error=False)
        if len(text) > (_LONGEST if self._tokens is None else LONGEST_TOKEN):
            raise refusal("malformed", "The credential is not an API key.")
        fingerprint = hashlib.sha256(text.encode()).digest()
        known = self._known.find(fingerprint)
        if known is None or time.monotonic() - known.read_at > _FRESH_S:
            known = await self._read(text, fingerprint, known, address)
        ends_at = known.principal.expires_at
        if ends_at is not None and ends_at <= datetime.now(UTC):
            kind = Unauthenticated if known.principal.has_key else Expired
            raise refusal("expired", "The API key or access token has expired.", kind=kind)
        return known.principal

    async def current(self, key_ids: Collection[str]) -> dict[str, Principal]:
        """Return the current rights of the usable keys among `key_ids`, with one query for all.

        Use it for connections that outlive a request: a key missing from the result was revoked, has expired,
        or belongs to a disabled user. Raise `DatabaseUnavailable` when the rights are unknown.
        """
        async with self._postgres.connection() as connection:
            found = await key_repository.find_usable(connection, key_ids)
        now = datetime.now(UTC)
        self._used.update(dict.fromkeys(found, now))
        return {key_id: usable.principal for key_id, usable in found.items()}

    async def find_principal(self, key_id: str) -> Principal | None:
        """Return the owner of a key with its current rights; None if the key can no longer be used."""
        return (await self.current([key_id])).get(key_id)

    async def renew(self, principal: Principal) -> Principal | None:
        """Return a caller with its current rights; None if its key was revoked or its user disabled."""
        if principal.has_key:
            return await self.find_principal(principal.key_id)
        assert self._subjects is not None, "a caller with an access token exists"
        async with self._postgres.connection() as connection:
            return await self._subjects.renew(connection, principal)

    async def require(self, principal: Principal) -> Principal:
        """Return a caller with its current rights. Raise `Unauthenticated` where `renew` returns None."""
        renewed = await self.renew(principal)
        if renewed is None:
            raise unknown_key()
        return renewed

    async def forget(self, user_id: int | None = None) -> None:
        """Look up the credentials of a user, or all, again before their next use: they were changed here."""
        self._changes += 1
        self._known.doubt(user_id)
        # What is being asked may be answered as of before the change.
        self._refreshes = Refreshes()
        self._refused.clear()

    async def note_use(self) -> None:
        """Write when keys were last used, every 30 seconds, until cancelled."""
        while True:
            await asyncio.sleep(TOUCH_EVERY_S)
            used, self._used = self._used, {}
            if not used:
                continue
            try:
                await self.write_use(used)
            except DatabaseUnavailable as error:
                log.warning("last use of keys could not be written", reason=error.detail)

    async def write_use(self, used: Mapping[str, datetime]) -> None:
        """Write when keys were last used, by their ids."""
        async with self._postgres.connection() as connection:
            await key_repository.touch(connection, used)

    async def _read(self, text: str, fingerprint: bytes, last: Known | None, address: str | None) -> Known:
        """Return the credential's state in the database, or the cached one while that is down or slow."""
        if last is None or time.monotonic() - last.read_at > _USABLE_S:
            asking = (
                self._read_unknown(text, fingerprint, address)
                if last is None
                else self._read_returning(text, fingerprint, last)
            )
            return await self._in_time(asking)
        now, kind = time.monotonic(), ApiKey if last.principal.has_key else Claims
        if now < self._ask_at[kind]:
            return last
        if self._ask_at[kind]:
            # An occasional query shows whether the database is available again.
            self._ask_at[kind] = now + _PAUSE_S
        question = partial(self._ask_again, text, fingerprint, last)
        answer = await self._refreshes.ask(fingerprint, question, within_s=REFRESHED_WITHIN_S)
        if answer is None:
            self._ask_at[kind] = time.monotonic() + _PAUSE_S
        return answer or last

    async def _in_time(self, asking: Coroutine[Any, Any, Known]) -> Known:
        try:
            async with asyncio.timeout(FOUND_WITHIN_S):
                return await asking
        except TimeoutError as error:
            raise DatabaseUnavailable(
                "The credential could not be checked in time; try again in a few seconds.", retry_after_s=2
            ) from error

    async def _ask_again(self, text: str, fingerprint: bytes, last: Known) -> Known:
        try:
            return await self._look_up(await self._verified(text), fingerprint)
        except DatabaseUnavailable:
            self._ask_at[ApiKey if last.principal.has_key else Claims] = time.monotonic() + _PAUSE_S
            return last
        except Unauthenticated:
            self._known.forget(fingerprint)
            raise

    async def _read_returning(self, text: str, fingerprint: bytes, last: Known) -> Known:
        """Look up a credential that was valid before, in turns of users, not behind unknown ones."""

        async def look_up() -> Known:
            credential = await self._verified(text)
            async with self._returning.turn(last.principal.owner_id):
                return await self._look_up(credential, fingerprint)

        try:
            answer = await self._refreshes.ask(fingerprint, look_up, within_s=FOUND_WITHIN_S)
        except Unauthenticated:
            self._known.forget(fingerprint)
            raise
        if answer is None:
            raise TimeoutError
        return answer

    async def _read_unknown(self, text: str, fingerprint: bytes, address: str | None) -> Known:
        may_be_token = self._tokens is not None and is_token(text)
        if not may_be_token and keys.parse(text) is None:
            raise refusal("malformed", "The credential is not an API key, or a character of it is wrong.")
        if time.monotonic() - self._refused.get(fingerprint, -_FRESH_S) < _FRESH_S:
            raise unknown_key()
        # A key may be anybody's until it is looked up.
        place = "" if address is None else network_of(address)
        try:
            with self._places.hold(place):
                self._require_few_failures(address)
                # Its issuer may be slow, which must not delay callers with a key.
                credential = await self._verified(text)
                async with self._strangers.turn(
                    credential.subject if isinstance(credential, Claims) else place
                ):
                    # Checked again: requests before this one may have used up the failures of the address.
                    self._require_few_failures(address)
                    return await self._look_up(credential, fingerprint)
        except RefusedAtSight:
            raise
        except Unauthenticated:
            if address is not None:
                self._failures.count(address)
            raise

    async def _verified(self, text: str) -> ApiKey | Claims:
        """Return the parts of a key, not yet looked up, or the claims of a verified access token."""
        if self._tokens is not None and is_token(text):
            return await self._tokens.verify(text)
        key = keys.parse(text)
        assert key is not None, "other texts are refused before"
        return key

    def _require_few_failures(self, address: str | None) -> None:
        wait_s = 0 if address is None else self._failures.wait_s(address)
        if wait_s:
            metrics.AUTH_FAILURES.labels("limited").inc()
            raise TooManyFailures(
                "Too many invalid API keys came from this address; only recently used keys work from it now.",
                retry_after_s=wait_s,
            )

    async def _look_up(self, credential: ApiKey | Claims, fingerprint: bytes) -> Known:
        """Return the credential's state in the database. Raise `Unauthenticated` when it is invalid."""
        asked_at, changes = time.monotonic(), self._changes
        known: Known | None
        if isinstance(credential, Claims):
            assert self._subjects is not None, "access tokens are configured"
            async with self._postgres.transaction() as connection:
                principal = await self._subjects.find(connection, credential, fingerprint)
            known = Known(principal, asked_at)
        else:
            async with self._postgres.connection() as connection:
                usable = (await key_repository.find_usable(connection, [credential.id])).get(credential.id)
                if usable is not None and self._previous_pepper is not None:
                    usable = await self._rehashed(connection, credential, usable)
            known = None if usable is None else self._proven(credential, usable, asked_at)
        self._ask_at[type(credential)] = 0.0
        if known is None:
            self._known.forget(fingerprint)
            self._refused[fingerprint] = asked_at
            self._refused.move_to_end(fingerprint)
            if len(self._refused) > _MOST_REFUSED:
                self._refused.popitem(last=False)
            raise unknown_key()
        # What was read before a change is good for this request, which came before it, and for no other one.
        self._known.remember(fingerprint, known if changes == self._changes else known.doubted())
        if known.principal.has_key:
            self._used[known.principal.key_id] = datetime.now(UTC)
        return known

    async def _rehashed(self, connection: Connection, key: ApiKey, usable: UsableKey) -> UsableKey:
        """Return a key with its digest under the current pepper; replace a digest under the previous one."""
        assert self._previous_pepper is not None
        before, now = keys.digest(self._previous_pepper, key), keys.digest(self._pepper, key)
        is_current = hmac.compare_digest(usable.digest, before)
        is_rotated = usable.previous is not None and hmac.compare_digest(usable.previous, before)
        if not (is_current or is_rotated):
            return usable
        await key_repository.rehash(connection, key.id, before, now)
        return replace(
            usable,
            digest=now if is_current else usable.digest,
            previous=now if is_rotated else usable.previous,
        )

    def _proven(self, key: ApiKey, usable: UsableKey, asked_at: float) -> Known | None:
        """Return the owner of a key if its secret is the current one, or the previous one during the overlap.

        The rights of the previous secret end with the overlap, and so do the keys that it creates.
        """
        digest, principal = keys.digest(self._pepper, key), usable.principal
        if hmac.compare_digest(digest, usable.digest):
            return Known(principal, asked_at)
        until = usable.previous_until
        if until is None or usable.previous is None or not hmac.compare_digest(digest, usable.previous):
            return None
        if until <= datetime.now(UTC):
            return None
        ends_at = until if principal.expires_at is None else min(until, principal.expires_at)
        return Known(replace(principal, expires_at=ends_at), asked_at)
