"""Pages and their files: public, under a policy that loads nothing from other origins."""

from __future__ import annotations

from pathlib import Path

from gateway.http.calls import Call
from gateway.http.endpoints import Answer, Endpoint, get
from gateway.http.replies import HttpReply, entity_tag

# Only files that this gateway serves, and nothing inline.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def page(path: str, file: Path, *, name: str, summary: str) -> Endpoint:
    """Declare a page or a file of one; browsers revalidate it at each use."""
    body, media_type = file.read_bytes(), _TYPES[file.suffix]
    reply = HttpReply(
        body,
        media_type=media_type,
        etag=entity_tag(body),
        headers={"content-security-policy": POLICY},
    )

    async def show(_: Call) -> HttpReply:
        return reply

    return get(
        path,
        show,
        name=name,
        summary=summary,
        tag="Pages",
        scope=None,
        is_public=True,
        answers={200: Answer(media_types=(media_type,), headers={"ETag": "The version of the file."})},
        cache="no-cache",
    )
