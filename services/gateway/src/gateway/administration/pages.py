"""The pages of the console. They contain no data: `/console/status` fetches it with a key.

`/console/login` exchanges the token of a login address for such a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway.http.assets import page
from gateway.http.endpoints import Endpoint

_ASSETS = Path(__file__).parent / "assets"
_FILES = {
    "/console/status": ("status.html", "showStatusPage", "Show the status page of /v1/admin/status"),
    "/console/login": ("login.html", "showLoginPage", "Sign in to the console with a login address"),
    "/console/login.js": ("login.js", "getLoginScript", "Read the script of the login page"),
    "/console/status.css": ("status.css", "getStatusStyle", "Read the style of the status page"),
    "/console/status.js": ("status.js", "getStatusScript", "Read the script of the status page"),
    "/console/status.svg": ("status.svg", "getStatusIcon", "Read the icon of the status page"),
}


def endpoints() -> Iterator[Endpoint]:
    """Yield the pages and the files that belong to them."""
    for path, (file, name, summary) in _FILES.items():
        yield page(path, _ASSETS / file, name=name, summary=summary)
