"""Checking senders against the gateway's copy; email checks again just before it sends a mail."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from chassis import metrics
from chassis.broker.envelope import Delivery
from chassis.owner_cache import OwnerCache
from chassis.postgres import Connection, Postgres
from contracts import addresses
from contracts.domains import AllowedSenders, DomainChanged
from gateway.domains import repository

# Verified domains are cached for a moment; domains that are not verified are looked up each time.
_FRESH_S = 5.0
_MOST_KNOWN = 10_000
_MOST_OF_OWNER = 500


def domains_of(senders: Iterable[str | None]) -> dict[str, str]:
    """Return the domains of senders; a mail without a sender uses the operator's default sender.

    A long name beyond ASCII takes a millisecond: for many, call it in a thread.
    """
    return {sender: addresses.parse(sender).domain.lower() for sender in senders if sender}


class VerifiedSenders:
    """Checks the senders of mails against the gateway's own database."""

    def __init__(self, postgres: Postgres, allowed: AllowedSenders) -> None:
        self._postgres = postgres
        self._allowed = allowed
        # The time until which each is used.
        self._known = OwnerCache[str, float](most=_MOST_KNOWN, of_owner=_MOST_OF_OWNER)

    async def refusals(self, owner_id: str, domains: Mapping[str, str]) -> dict[str, str]:
        """Return why the owner may not send as some of the senders in `domains`, by sender."""
        doubtful = {domain for domain in domains.values() if not self._allowed.allows(domain)}
        now = time.monotonic()
        known = {name for name in doubtful if (self._known.get(owner_id, name) or 0.0) > now}
        if unknown := doubtful - known:
            async with self._postgres.connection() as connection:
                verified = await repository.verified(connection, owner_id, unknown)
            for name in verified:
                self._known.store(owner_id, name, now + _FRESH_S)
            known |= verified
        refused = doubtful - known
        found = {
            sender: f"{domain} is not one of your verified domains: add and verify it at /v1/domains"
            for sender, domain in domains.items()
            if domain in refused
        }
        if found:
            metrics.EMAIL_SENDERS_REFUSED.labels("gateway").inc(len(found))
        return found

    async def changed(self, connection: Connection, deliveries: Sequence[Delivery[DomainChanged]]) -> None:
        """Store the changes of domains that email has announced."""
        for delivery in deliveries:
            await repository.note(connection, delivery.message)

    async def store(
        self, change: DomainChanged | None, also: Callable[[Connection], Awaitable[None]]
    ) -> None:
        """Store a domain as returned by email, if it has changed, in one transaction with `also`."""
        async with self._postgres.transaction() as connection:
            if change is not None:
                await repository.note(connection, change)
            await also(connection)
        if change is not None:
            self.forget(change.owner_id, change.name)

    def forget(self, owner_id: str, name: str) -> None:
        """Remove a domain from the cache: the next mail from it is checked against the database."""
        self._known.forget(owner_id, name)
