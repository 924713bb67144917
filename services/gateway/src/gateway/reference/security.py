"""The ways to authenticate, as both documents describe them."""

from __future__ import annotations

from collections.abc import Mapping

from contracts.scopes import MEANINGS
from gateway.reference.schemas import Json

_SCOPES = "\n".join(f"- `{scope}`: {meaning}" for scope, meaning in MEANINGS.items())

SCHEMES: Mapping[str, Json] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (`tw_live_…`), or an access token (RFC 9068) of the configured issuer. "
        f"Both have scopes:\n\n{_SCOPES}",
    },
    "key": {
        "type": "httpApiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "An API key, for clients that cannot set `Authorization`.",
    },
}
