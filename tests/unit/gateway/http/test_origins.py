"""Origins as settings name them, and the origin of a WebSocket."""

from __future__ import annotations

import pytest

from chassis.errors import Forbidden
from gateway.http.calls import IncomingRequest
from gateway.http.origins import read_origins, require_origin


def upgrade(**headers: str) -> IncomingRequest:
    return IncomingRequest({"headers": [(name.encode(), value.encode()) for name, value in headers.items()]})


def test_an_empty_list_of_origins_allows_none() -> None:
    assert read_origins("") == ()


def test_origins_are_separated_by_commas() -> None:
    text = "https://app.example.com, http://localhost:5173,http://[::1]:3000"
    assert read_origins(text) == ("https://app.example.com", "http://localhost:5173", "http://[::1]:3000")


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "null",
        "https://*.example.com",
        "app.example.com",
        "https://app.example.com/",
        "https://app.example.com/page",
        "https://APP.example.com",
        "https://app.example.com:443",
        "http://app.example.com:80",
        "https://user@app.example.com",
        "ftp://app.example.com",
        "https://app.example.com;https://b.example.com",
    ],
)
def test_a_text_that_no_browser_sends_is_refused_as_an_origin(text: str) -> None:
    with pytest.raises(ValueError, match="is not an origin"):
        read_origins(text)


def test_programs_and_the_gateways_own_pages_may_connect() -> None:
    require_origin(upgrade(host="api.example.com"), ())
    require_origin(upgrade(host="api.example.com", origin="https://api.example.com"), ())


def test_a_page_may_connect_whose_origin_is_listed() -> None:
    require_origin(
        upgrade(host="api.example.com", origin="https://app.example.com"), ("https://app.example.com",)
    )


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", "https://app.example.com:8443", ""])
def test_a_page_of_another_origin_may_not_connect(origin: str) -> None:
    with pytest.raises(Forbidden, match="GATEWAY_CORS_ORIGINS"):
        require_origin(upgrade(host="api.example.com", origin=origin), ("https://app.example.com",))
