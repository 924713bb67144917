"""`/v1/domains`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator

from chassis.errors import Conflict, DatabaseUnavailable, NotFound, TooManyAtOnce, Unavailable
from contracts import problems
from contracts.domains import Domain
from contracts.scopes import Scope
from gateway.acceptance.inputs import EXAMPLE_ID
from gateway.domains.inputs import DomainList
from gateway.domains.service import DomainService
from gateway.errors import PreconditionFailed, PreconditionRequired
from gateway.http.endpoints import (
    Endpoint,
    Idempotency,
    Precondition,
    delete,
    get,
    json,
    nothing,
    post,
)

_ETAG = {"ETag": "the version of the domain, for If-Match"}
_CHANGED = (NotFound, PreconditionFailed, PreconditionRequired, DatabaseUnavailable, Unavailable)


def endpoints(service: DomainService) -> Iterator[Endpoint]:
    """Yield the endpoints of sender domains."""
    yield post(
        "/v1/domains",
        service.create,
        name="createDomain",
        summary="Add a domain to send from, and get the DNS records to set",
        tag="Sender domains",
        scope=Scope.DOMAINS_WRITE,
        answers={201: json(Domain, headers={**_ETAG, "Location": "the domain"})},
        errors=(
            DatabaseUnavailable,
            Unavailable,
            problems.of("domain-exists"),
            problems.of("too-many-domains"),
        ),
        examples={"a domain": {"name": "example.com"}},
    )
    yield get(
        "/v1/domains",
        service.list,
        name="listDomains",
        summary="List your sender domains, newest first",
        tag="Sender domains",
        scope=Scope.EMAILS_READ,
        answers={200: json(DomainList)},
        errors=(Unavailable,),
    )
    yield from _one(service)


def _one(service: DomainService) -> Iterator[Endpoint]:
    yield get(
        "/v1/domains/<uuid:domain_id>",
        service.get,
        name="getDomain",
        summary="Read a sender domain: its records with the values in DNS, and its DKIM keys",
        tag="Sender domains",
        scope=Scope.EMAILS_READ,
        answers={200: json(Domain, headers=_ETAG)},
        errors=(NotFound, Unavailable),
        examples={"domain_id": EXAMPLE_ID},
    )
    yield post(
        "/v1/domains/<uuid:domain_id>/verify",
        service.verify,
        name="verifyDomain",
        summary="Check the DNS records of a sender domain now",
        tag="Sender domains",
        scope=Scope.DOMAINS_WRITE,
        answers={200: json(Domain, headers=_ETAG)},
        errors=(NotFound, TooManyAtOnce, DatabaseUnavailable, Unavailable),
        # Repeating the check is harmless: only the current records count.
        idempotency=Idempotency.NONE,
        examples={"domain_id": EXAMPLE_ID},
    )
    yield post(
        "/v1/domains/<uuid:domain_id>/dkim/rotate",
        service.rotate,
        name="rotateDkim",
        summary="Create new DKIM keys, which sign once their records are found",
        tag="Sender domains",
        scope=Scope.DOMAINS_WRITE,
        answers={200: json(Domain, headers=_ETAG)},
        errors=(Conflict, problems.of("no-secrets-key"), *_CHANGED),
        precondition=Precondition.REQUIRED,
        examples={"domain_id": EXAMPLE_ID},
    )
    yield delete(
        "/v1/domains/<uuid:domain_id>",
        service.delete,
        name="deleteDomain",
        summary="Remove a sender domain: no mail is sent from it any more",
        tag="Sender domains",
        scope=Scope.DOMAINS_WRITE,
        answers={204: nothing()},
        errors=_CHANGED,
        precondition=Precondition.REQUIRED,
        examples={"domain_id": EXAMPLE_ID},
    )
