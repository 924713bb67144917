"""A handshake that is refused has a problem as its answer, with the type that says whose fault it is."""

from __future__ import annotations

from http import HTTPStatus

import orjson
import pytest

from gateway.realtime.handshake import Handshake


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (HTTPStatus.BAD_REQUEST, "malformed-input"),
        (HTTPStatus.REQUEST_URI_TOO_LONG, "uri-too-long"),
        (HTTPStatus.INTERNAL_SERVER_ERROR, "internal"),
    ],
)
def test_the_type_of_a_refused_handshake_goes_with_its_status(status: HTTPStatus, kind: str) -> None:
    document = orjson.loads(Handshake().reject(status, "Why.").body or b"")
    assert (document["type"], document["status"]) == (f"/problems/{kind}", status)
