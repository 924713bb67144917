"""`/v1/emails`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator

from chassis.errors import (
    Conflict,
    DatabaseUnavailable,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    TooManyAtOnce,
    Unavailable,
)
from contracts.scopes import Scope
from gateway.acceptance.inputs import EXAMPLE_ID
from gateway.emails import several
from gateway.emails.bulk import BulkChanges
from gateway.emails.inputs import (
    ACCEPTED_EMAIL,
    CHANGED_EMAIL,
    CHANGED_EMAILS,
    EmailList,
    EmailResults,
    EmailView,
)
from gateway.emails.service import EmailService
from gateway.errors import IdempotencyConflict, IdempotencyMismatch, PreconditionFailed
from gateway.http.endpoints import (
    Answer,
    Endpoint,
    Idempotency,
    Precondition,
    delete,
    get,
    json,
    patch,
    post,
)
from gateway.http.filters import SteppedResult
from gateway.http.rates import RateClass
from gateway.http.replies import MAIL

_ETAG = {"ETag": "the version of the mail, for If-Match, once it is stored"}
_MAIL = {"to": ["ann@example.com"], "subject": "Hello", "text": "It works."}
_MAIL_OF_TEMPLATE = {
    "to": ["ann@example.com"],
    "template": {"name": "welcome", "data": {"name": "Ann"}},
}

_OF_ACCEPTANCE = (
    *(Overloaded, DatabaseUnavailable, IdempotencyConflict, IdempotencyMismatch, PayloadTooLarge),
    Unavailable,
)


def endpoints(service: EmailService, bulk: BulkChanges) -> Iterator[Endpoint]:
    """Yield the endpoints of e-mails."""
    yield post(
        "/v1/emails",
        service.send,
        name="sendEmail",
        summary="Accept a mail for delivery",
        tag="E-mail",
        scope=Scope.EMAILS_SEND,
        answers={202: ACCEPTED_EMAIL},
        errors=_OF_ACCEPTANCE,
        idempotency=Idempotency.ACCEPTANCE,
        rate=RateClass.SEND,
        cost=lambda mail: len(mail.to) + len(mail.cc) + len(mail.bcc),
        examples={"a mail": _MAIL, "a mail of a template": _MAIL_OF_TEMPLATE},
    )
    yield post(
        "/v1/emails/batch",
        service.send_several,
        name="sendEmails",
        summary="Accept up to 500 mails: all or none, or the valid ones",
        tag="E-mail",
        scope=Scope.EMAILS_SEND,
        answers={
            202: json(EmailResults, description="the outcome of each mail, in the order of the request")
        },
        errors=_OF_ACCEPTANCE,
        rate=RateClass.SEND,
        cost=several.count_recipients,
        examples={
            "two mails": {"emails": [_MAIL, {**_MAIL, "to": ["bob@example.com"]}], "mode": "permissive"},
        },
    )
    yield get(
        "/v1/emails",
        service.list,
        name="listEmails",
        summary="List your mails, newest first",
        tag="E-mail",
        scope=Scope.EMAILS_READ,
        answers={200: json(EmailList)},
        errors=(Unavailable, DatabaseUnavailable),
    )
    yield from _bulk(bulk)
    yield from _one(service)
    yield from _again(service)


def _bulk(bulk: BulkChanges) -> Iterator[Endpoint]:
    yield post(
        "/v1/emails/cancel",
        bulk.cancel,
        name="cancelEmails",
        summary="Cancel the mails that match a filter, except recipients already handed to the relay",
        tag="E-mail",
        scope=Scope.EMAILS_SEND,
        answers={200: json(SteppedResult, excerpt=CHANGED_EMAILS)},
        errors=(Unavailable,),
        examples={"status": "queued", "dry_run": "true"},
    )
    yield post(
        "/v1/emails/retry",
        bulk.retry,
        name="retryEmails",
        summary="Retry at once the deferred, held, failed, suppressed or expired mails that match a filter",
        tag="E-mail",
        scope=Scope.EMAILS_SEND,
        answers={200: json(SteppedResult, excerpt=CHANGED_EMAILS)},
        errors=(Unavailable,),
        examples={"status": "held,failed", "dry_run": "true"},
    )


def _one(service: EmailService) -> Iterator[Endpoint]:
    yield get(
        "/v1/emails/<uuid:email_id>",
        service.get,
        name="getEmail",
        summary="Report the state of a mail, its recipients and attempts",
        tag="E-mail",
        scope=Scope.EMAILS_READ,
        answers={200: json(EmailView, optional=_ETAG)},
        errors=(NotFound, DatabaseUnavailable),
        examples={"email_id": EXAMPLE_ID},
    )
    yield get(
        "/v1/emails/<uuid:email_id>/raw",
        service.raw,
        name="getRawEmail",
        summary="Return a mail as it is handed to the relay",
        tag="E-mail",
        scope=Scope.EMAILS_READ,
        answers={200: Answer(media_types=(MAIL,), description="headers and body, in MIME")},
        errors=(NotFound, Conflict, TooManyAtOnce, Unavailable),
        examples={"email_id": EXAMPLE_ID},
    )
    yield patch(
        "/v1/emails/<uuid:email_id>",
        service.reschedule,
        name="rescheduleEmail",
        summary="Reschedule a mail before its first attempt",
        tag="E-mail",
        scope=Scope.EMAILS_SEND,
        answers={200: json(EmailView, optional=_ETAG, excerpt=CHANGED_EMAIL)},
        errors=(NotFound, Conflict, PreconditionFailed, Unavailable),
        precondition=Precondition.OPTIONAL,
        examples={"email_id": EXAMPLE_ID, "tomorrow": {"send_at": "2026-11-28T08:00:00Z"}},
    )
    yield delete(
        "/v1/emails/<uuid:email_id>",
        service.cancel_one,
        name="cancelEmail",
        summary="Cancel a mail, except for recipients already handed to the relay",
        tag="E-mail",
        scope=Scope.EMAILS_SEND,
        answers={200: json(EmailView, excerpt=CHANGED_EMAIL)},
        errors=(NotFound, Conflict, Unavailable),
        examples={"email_id": EXAMPLE_ID},
    )


def _again(service: EmailService) -> Iterator[Endpoint]:
    yield post(
        "/v1/emails/<uuid:email_id>/resend",
        service.resend,
        name="resendEmail",
        summary="Send a new mail with the content and the recipients of an earlier one",
        tag="E-mail",
        scope=Scope.EMAILS_SEND,
        answers={202: ACCEPTED_EMAIL},
        errors=(
            NotFound,
            Conflict,
            Overloaded,
            DatabaseUnavailable,
            IdempotencyConflict,
            IdempotencyMismatch,
            Unavailable,
        ),
        idempotency=Idempotency.ACCEPTANCE,
        rate=RateClass.SEND,
        examples={"email_id": EXAMPLE_ID},
    )
