"""Sender domains at the gateway: stored and checked by email; changes are audited here."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from chassis.broker import envelope
from chassis.broker.rpc import RpcClient
from chassis.postgres import Connection
from contracts.domains import (
    CreateDomain,
    DeleteDomain,
    Domain,
    DomainChanged,
    Domains,
    GetDomain,
    ListDomains,
    RotateDkim,
    VerifyDomain,
)
from gateway.audit.inputs import Action
from gateway.audit.service import AuditTrail
from gateway.domains.inputs import DomainInput, DomainList, DomainsQuery
from gateway.domains.senders import VerifiedSenders
from gateway.http.calls import Call
from gateway.http.replies import HttpReply, document


class DomainService:
    """Forwards the caller's requests, and keeps the gateway's copy of the verified domains."""

    def __init__(self, rpc: RpcClient, senders: VerifiedSenders, audit: AuditTrail) -> None:
        self._rpc = rpc
        self._senders = senders
        self._audit = audit

    async def create(self, call: Call, body: DomainInput) -> HttpReply:
        """Store a domain; the answer has the records to set."""
        request = CreateDomain(
            domain_id=envelope.new_id(),
            owner_id=call.principal.owner_id,
            name=body.name,
            request_key=call.request_key,
        )
        domain = await self._rpc.call(request, Domain, call.deadline)
        self._audit.record_with(call, Action.DOMAIN_CREATED, _target(domain), after=_audited(domain))
        return _reply(domain, location=f"/v1/domains/{domain.id}")

    async def get(self, call: Call, domain_id: UUID) -> HttpReply:
        """Return a domain of the caller with the results of its last check."""
        return _reply(await self._find(call, domain_id))

    async def list(self, call: Call, query: DomainsQuery) -> DomainList:
        """Return a page of the caller's domains, newest first."""
        request = ListDomains(
            owner_id=call.principal.owner_id,
            name=query.name,
            status=query.status or [],
            created_after=query.created_after,
            created_before=query.created_before,
            before=query.cursor,
            limit=query.limit,
        )
        page = await self._rpc.call(request, Domains, call.deadline)
        return DomainList(data=page.data, next_cursor=page.next_cursor)

    async def verify(self, call: Call, domain_id: UUID) -> HttpReply:
        """Check the records now; the result applies to all mails that are sent after the answer.

        No transaction is open during the check, because DNS may take seconds.
        """
        request = VerifyDomain(domain_id=domain_id, owner_id=call.principal.owner_id)
        domain = await self._rpc.call(request, Domain, call.deadline)
        change = _change(call, domain, is_verified=domain.status == "verified")
        await self._senders.store(
            change, lambda connection: self._record(call, connection, Action.DOMAIN_CHECKED, domain)
        )
        return _reply(domain)

    async def rotate(self, call: Call, domain_id: UUID) -> HttpReply:
        """Create new DKIM keys for a domain at the version that the caller has read."""
        seen = await self._seen(call, domain_id)
        request = RotateDkim(
            domain_id=domain_id,
            owner_id=call.principal.owner_id,
            version=seen,
            request_key=call.request_key,
        )
        domain = await self._rpc.call(request, Domain, call.deadline)
        self._audit.record_with(call, Action.DOMAIN_KEYS_ROTATED, _target(domain), after=_audited(domain))
        return _reply(domain)

    async def delete(self, call: Call, domain_id: UUID) -> None:
        """Remove a domain at the version that the caller has read: no mail is sent from it any more."""
        seen = await self._seen(call, domain_id)
        request = DeleteDomain(domain_id=domain_id, owner_id=call.principal.owner_id, version=seen)
        domain = await self._rpc.call(request, Domain, call.deadline)
        gone = domain.model_copy(update={"version": domain.version + 1})
        await self._senders.store(
            _change(call, gone, is_verified=False),
            lambda connection: self._record(call, connection, Action.DOMAIN_DELETED, domain),
        )

    async def _seen(self, call: Call, domain_id: UUID) -> int | None:
        """Return the version that the caller names, which must be the current one; None for any."""
        if call.if_match is None or call.if_match.star_tag:
            return None
        domain = await self._find(call, domain_id)
        call.require_match(_etag(domain))
        return domain.version

    async def _find(self, call: Call, domain_id: UUID) -> Domain:
        request = GetDomain(domain_id=domain_id, owner_id=call.principal.owner_id)
        return await self._rpc.call(request, Domain, call.deadline)

    async def _record(self, call: Call, connection: Connection, action: Action, domain: Domain) -> None:
        await self._audit.record(connection, call.principal, action, _target(domain), after=_audited(domain))


def _target(domain: Domain) -> str:
    return f"domain:{domain.id}"


def _audited(domain: Domain) -> dict[str, Any]:
    """Return the fields of a domain that the audit trail records."""
    return {
        "name": domain.name,
        "status": domain.status,
        "selectors": {key.selector: key.state for key in domain.dkim},
    }


def _change(call: Call, domain: Domain, *, is_verified: bool) -> DomainChanged | None:
    """Return the reply of email as the event that email also publishes: the reply may arrive first.

    Return None for a domain that was never verified: nothing has to be known of it here, and any number of
    them can be made and deleted.
    """
    if domain.verified_at is None:
        return None
    return DomainChanged(
        domain_id=domain.id,
        owner_id=call.principal.owner_id,
        name=domain.name,
        is_verified=is_verified,
        version=domain.version,
    )


def _etag(domain: Domain) -> str:
    return f'"{domain.id}-{domain.version}"'


def _reply(domain: Domain, *, location: str | None = None) -> HttpReply:
    return HttpReply(document(domain), etag=_etag(domain), location=location)
