"""Failed authentication: the error with its challenge, counted by reason."""

from __future__ import annotations

from chassis import metrics
from chassis.errors import Unauthenticated

_REALM = 'Bearer realm="tickwire"'


class RefusedAtSight(Unauthenticated):
    """A credential is refused because of its content, which does not count as guessing."""


class Expired(RefusedAtSight):
    """A credential has expired; its owner can get a new one."""


def refusal(
    reason: str, detail: str, *, error: bool = True, kind: type[Unauthenticated] = Unauthenticated
) -> Unauthenticated:
    """Return the error with the challenge of RFC 6750, which names no error if no credential was sent."""
    metrics.AUTH_FAILURES.labels(reason).inc()
    cause = f', error="invalid_token", error_description="{detail}"' if error else ""
    return kind(detail, headers={"www-authenticate": _REALM + cause})


def unknown_key() -> Unauthenticated:
    """Return the error for a key that may not be used."""
    return refusal("unknown", "The API key is not known, has expired or was revoked.")
