"""`/console/status`: the page that draws `/v1/admin/status`. It holds no data: that takes a key."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from quart import Quart, Response, request

from gateway.http.edge import POLICY, ROUTE
from gateway.http.endpoint import is_known, scope_of

_ASSETS = Path(__file__).parent / "assets"
_FILES = {
    "/console/status": ("status.html", "text/html; charset=utf-8"),
    "/console/status.css": ("status.css", "text/css; charset=utf-8"),
    "/console/status.js": ("status.js", "text/javascript; charset=utf-8"),
    "/console/status.svg": ("status.svg", "image/svg+xml"),
}
# Only what this gateway serves itself, and nothing written into the page.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page, as it is served."""

    body: bytes
    content_type: str
    etag: str

    @classmethod
    def read(cls, name: str, content_type: str) -> Asset:
        """The file `name`, named by what is in it."""
        body = (_ASSETS / name).read_bytes()
        return cls(body, content_type, f'"{sha256(body).hexdigest()[:16]}"')


def register(app: Quart) -> None:
    """Serve the page and what belongs to it, to everybody."""
    for path, (name, content_type) in _FILES.items():
        _serve(app, path, Asset.read(name, content_type))


def _serve(app: Quart, path: str, asset: Asset) -> None:
    # A browser asks again each time: after an update nobody sees an old script on a new page.
    headers = {"cache-control": "no-cache", "etag": asset.etag}

    async def show() -> Response:
        scope = scope_of(request)
        scope[ROUTE] = path
        scope[POLICY] = _POLICY
        if is_known(asset.etag):
            return Response(b"", 304, headers=headers)
        return Response(asset.body, headers=headers, content_type=asset.content_type)

    app.add_url_rule(path, f"GET {path}", show)
