"""The pages of the console. They contain no data: `/console/status` fetches it with a key.

`/console/login` exchanges the token of a login address for such a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway.http.assets import page
from gateway.http.calls import Call
from gateway.http.endpoints import Endpoint, get, nothing
from gateway.http.replies import HttpReply

_ASSETS = Path(__file__).parent / "assets"
_FILES = {
    "/console/status": ("status.html", "showStatusPage", "Show the status page of /v1/admin/status"),
    "/console/login": ("login.html", "showLoginPage", "Sign in to the console with a login address"),
    "/console/login.js": ("login.js", "getLoginScript", "Read the script of the login page"),
    "/console/status.css": ("status.css", "getStatusStyle", "Read the style of the status page"),
    "/console/status.js": ("status.js", "getStatusScript", "Read the script of the status page"),
    "/console/status.svg": ("status.svg", "getStatusIcon", "Read the icon of the status page"),
}


async def first_page(_: Call) -> HttpReply:
    """Lead to the status page."""
    return HttpReply(None, 303, location="/console/status")


def endpoints() -> Iterator[Endpoint]:
    """Yield the pages and the files that belong to them."""
    yield get(
        "/console",
        first_page,
        name="openConsole",
        summary="Be redirected to the first page of the console",
        tag="Pages",
        scope=None,
        is_public=True,
        answers={303: nothing(headers={"Location": "the page"})},
        cache="no-cache",
    )
    for path, (file, name, summary) in _FILES.items():
        yield page(path, _ASSETS / file, name=name, summary=summary)
