"""`/v1/emails`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator

from chassis.errors import DatabaseUnavailable, NotFound, Overloaded, PayloadTooLarge
from contracts.scopes import Scope
from gateway.acceptance.inputs import ACCEPTED, EXAMPLE_ID
from gateway.emails.inputs import EmailView
from gateway.emails.service import EmailService
from gateway.errors import IdempotencyConflict, IdempotencyMismatch
from gateway.http.endpoints import Endpoint, Idempotency, get, json, post


def endpoints(service: EmailService) -> Iterator[Endpoint]:
    """Yield the endpoints of e-mails."""
    yield post(
        "/v1/emails",
        service.send,
        name="sendEmail",
        summary="Accept a mail for delivery",
        tag="E-mail",
        scope=Scope.EMAILS_SEND,
        answers={202: ACCEPTED},
        errors=(Overloaded, DatabaseUnavailable, IdempotencyConflict, IdempotencyMismatch, PayloadTooLarge),
        idempotency=Idempotency.ACCEPTANCE,
        rate="send",
        cost=lambda mail: len(mail.to) + len(mail.cc) + len(mail.bcc),
        examples={
            "a mail": {"to": ["ann@example.com"], "subject": "Hello", "text": "It works."},
        },
    )
    yield get(
        "/v1/emails/<uuid:email_id>",
        service.get,
        name="getEmail",
        summary="Report what has become of a mail",
        tag="E-mail",
        scope=Scope.EMAILS_READ,
        answers={200: json(EmailView)},
        errors=(NotFound, DatabaseUnavailable),
        examples={"email_id": EXAMPLE_ID},
    )
