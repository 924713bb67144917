"""`/v1/emails/retention` and `/v1/admin/emails/retention`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chassis.errors import DatabaseUnavailable, NotFound, Unavailable
from contracts.retention import MailRetention
from contracts.scopes import Scope
from gateway.errors import PreconditionFailed, PreconditionRequired
from gateway.http.endpoints import Endpoint, Precondition, get, json, put
from gateway.retention.service import RetentionService

_ABOUT: dict[str, Any] = {
    "tag": "E-mail",
    "answers": {200: json(MailRetention, headers={"ETag": "the version of the retention, for If-Match"})},
}
_READ = (DatabaseUnavailable, Unavailable)
_CHANGED = (PreconditionFailed, PreconditionRequired, *_READ)
_EXAMPLE = {"two weeks": {"content_days": 14, "record_days": 60}}


def endpoints(service: RetentionService) -> Iterator[Endpoint]:
    """Yield the endpoints of retention: of the caller's own mails, and of any user's."""
    yield get(
        "/v1/emails/retention",
        service.get_own,
        name="getRetention",
        summary="Read for how long your mails are kept after their end",
        scope=Scope.EMAILS_READ,
        errors=_READ,
        **_ABOUT,
    )
    yield put(
        "/v1/emails/retention",
        service.set_own,
        name="setRetention",
        summary="Set for how long your mails are kept after their end",
        scope=Scope.EMAILS_SEND,
        errors=_CHANGED,
        precondition=Precondition.REQUIRED,
        examples=_EXAMPLE,
        **_ABOUT,
    )
    yield get(
        "/v1/admin/emails/retention/<int:user_id>",
        service.get,
        name="getUserRetention",
        summary="Read for how long a user's mails are kept after their end",
        scope=Scope.ADMIN,
        errors=(NotFound, *_READ),
        examples={"user_id": 1},
        **_ABOUT,
    )
    yield put(
        "/v1/admin/emails/retention/<int:user_id>",
        service.set,
        name="setUserRetention",
        summary="Set for how long a user's mails are kept after their end",
        scope=Scope.ADMIN,
        errors=(NotFound, *_CHANGED),
        precondition=Precondition.REQUIRED,
        examples={"user_id": 1, **_EXAMPLE},
        **_ABOUT,
    )
