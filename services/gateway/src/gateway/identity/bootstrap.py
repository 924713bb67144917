"""The bootstrap key: the first administrator's key, which is configured in the settings."""

from __future__ import annotations

import asyncio
import hmac
from typing import Any

from chassis import logging, metrics
from chassis.postgres import Postgres
from contracts.scopes import Scope
from gateway.audit.inputs import Action
from gateway.audit.service import AuditTrail
from gateway.identity import key_repository, keys, user_repository
from gateway.identity.keys import ApiKey

log = logging.get(__name__)

ADMINISTRATOR = "admin@localhost"


class BootstrapKey:
    """Stores the bootstrap key once, and reports whether it can still administer the installation."""

    def __init__(
        self,
        postgres: Postgres,
        *,
        audit: AuditTrail,
        pepper: str,
        key: ApiKey,
        previous_pepper: str | None = None,
    ) -> None:
        self._postgres = postgres
        self._audit = audit
        self._key = key
        self._digest = keys.digest(pepper, key)
        # The previous pepper, or the one to come: another gateway may store the key under it at any time.
        self._before = None if previous_pepper is None else keys.digest(previous_pepper, key)
        self._reason: str | None = None
        # One after the other: what an earlier look found must not replace what a later one has found.
        self._looking = asyncio.Lock()

    async def make_known(self) -> None:
        """Store this key for the first administrator unless it is stored; a revoked key stays revoked."""
        async with self._postgres.transaction() as connection:
            is_known = await key_repository.find_secret(connection, self._key.id) is not None
            if not is_known:
                user_id = await user_repository.ensure_administrator(connection, ADMINISTRATOR)
                # Another replica that starts now waits for that user, and then finds the key here.
                is_known = await key_repository.find_secret(connection, self._key.id) is not None
            if not is_known:
                about: dict[str, Any] = {"user_id": user_id, "name": "bootstrap", "scopes": [Scope.ADMIN]}
                await key_repository.insert(connection, self._key.id, digest=self._digest, **about)
                target = f"api-key:{self._key.id}"
                await self._audit.record(connection, None, Action.KEY_CREATED, target, after=about)
            elif self._before is not None:
                await key_repository.rehash(connection, self._key.id, self._before, self._digest)
        await self.look()

    async def look(self) -> None:
        """Measure whether the key works, and log when it has stopped working."""
        async with self._looking:
            reason = await self.refusal()
            metrics.BOOTSTRAP_KEY_REFUSED.set(reason is not None)
            if reason is not None and reason != self._reason:
                log.error(
                    "the bootstrap key does not work; create an administrator's key with "
                    "python -m gateway.identity.reset and configure it as GATEWAY_BOOTSTRAP_KEY",
                    key_id=self._key.id,
                    reason=reason,
                )
            self._reason = reason

    async def refusal(self) -> str | None:
        """Return why the key does not administer the installation, or None when it does."""
        async with self._postgres.connection() as connection:
            secret = await key_repository.find_secret(connection, self._key.id)
            usable = (await key_repository.find_usable(connection, [self._key.id])).get(self._key.id)
        if secret is None:
            return "it is not in the database"
        digests = (self._digest,) if self._before is None else (self._digest, self._before)
        if not any(hmac.compare_digest(secret["digest"], one) for one in digests):
            return "it was rotated, or GATEWAY_KEY_PEPPER or the secret of the key has changed"
        if usable is None:
            return "it was revoked or has expired, or its user is disabled"
        return None if usable.principal.may(Scope.ADMIN) else "its user is not an administrator"
