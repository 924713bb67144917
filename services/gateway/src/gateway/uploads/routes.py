"""`/v1/uploads`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator

from chassis.errors import (
    DatabaseUnavailable,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    Unavailable,
    UnsupportedMediaType,
)
from contracts import problems
from contracts.mail import MOST_UPLOAD_BYTES
from contracts.scopes import Scope
from gateway.acceptance.inputs import EXAMPLE_ID
from gateway.errors import IdempotencyConflict, IdempotencyMismatch, UploadStalled
from gateway.http.endpoints import Endpoint, Idempotency, get, json, post
from gateway.http.replies import OCTETS
from gateway.uploads.inputs import UploadView
from gateway.uploads.service import FileUploadService


def endpoints(service: FileUploadService) -> Iterator[Endpoint]:
    """Yield the endpoints of uploads."""
    yield post(
        "/v1/uploads",
        service.create,
        name="createFileUpload",
        summary="Store a file of up to 20 MiB, which mails then attach by its id",
        tag="E-mail",
        scope=Scope.EMAILS_SEND,
        answers={201: json(UploadView, headers={"Location": "the upload", "ETag": "its SHA-256 in hex"})},
        errors=(
            Overloaded,
            DatabaseUnavailable,
            Unavailable,
            NotFound,
            IdempotencyConflict,
            IdempotencyMismatch,
            PayloadTooLarge,
            UnsupportedMediaType,
            UploadStalled,
            problems.of("too-many-uploads"),
        ),
        upload=OCTETS,
        upload_limit=MOST_UPLOAD_BYTES,
        idempotency=Idempotency.ACCEPTANCE,
    )
    yield get(
        "/v1/uploads/<uuid:upload_id>",
        service.get,
        name="getFileUpload",
        summary="Read the size, the checksum and the expiry of an upload",
        tag="E-mail",
        scope=Scope.EMAILS_SEND,
        answers={200: json(UploadView, headers={"ETag": "its SHA-256 in hex"})},
        errors=(NotFound, DatabaseUnavailable),
        examples={"upload_id": EXAMPLE_ID},
    )
