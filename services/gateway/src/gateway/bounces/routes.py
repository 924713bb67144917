"""`/v1/inbound/bounces`: the declared endpoint."""

from __future__ import annotations

from collections.abc import Iterator

from chassis.errors import NotFound, Overloaded, Unavailable
from contracts.scopes import Scope
from gateway.bounces.inputs import RecordedBounce
from gateway.bounces.service import BounceService
from gateway.http.endpoints import Endpoint, json, post
from gateway.http.replies import MAIL


def endpoints(service: BounceService) -> Iterator[Endpoint]:
    """Yield the endpoint that accepts bounces."""
    yield post(
        "/v1/inbound/bounces",
        service.record,
        name="recordBounce",
        summary="Submit a bounced mail; for the mail server",
        tag="E-mail",
        scope=Scope.BOUNCES_WRITE,
        takes=(MAIL,),
        answers={200: json(RecordedBounce)},
        errors=(NotFound, Overloaded, Unavailable),
    )
