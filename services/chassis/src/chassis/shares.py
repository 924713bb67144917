"""The owner for whom requests are made, so that the service that answers counts them in its share."""

from __future__ import annotations

from contextvars import ContextVar

# Empty for requests that a service makes for itself, which take no owner's share.
current: ContextVar[str] = ContextVar("share", default="")
