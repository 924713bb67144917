"""Failed authentication: the error with its challenge, counted by reason."""

from __future__ import annotations

from chassis import metrics
from chassis.errors import Unauthenticated

_REALM = 'Bearer realm="tickwire"'


class RefusedAtSight(Unauthenticated):
    """A credential is refused for what it contains: sending it again is not guessing."""


class Expired(RefusedAtSight):
    """The time of a credential is over: its owner can get another one."""


def refusal(
    reason: str, detail: str, *, error: bool = True, kind: type[Unauthenticated] = Unauthenticated
) -> Unauthenticated:
    """Return the error with the challenge of RFC 6750, which names no error where no credential was sent."""
    metrics.AUTH_FAILURES.labels(reason).inc()
    cause = f', error="invalid_token", error_description="{detail}"' if error else ""
    return kind(detail, headers={"www-authenticate": _REALM + cause})


def unknown_key() -> Unauthenticated:
    """Return the error of a key that may not be used."""
    return refusal("unknown", "The API key is not known, has expired or was revoked.")
