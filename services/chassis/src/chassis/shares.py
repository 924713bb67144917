"""The share of an answering service that requests take: that of the owner for whom they are made."""

from __future__ import annotations

from contextvars import ContextVar

# Empty for what a service asks for itself, which takes no owner's share.
current: ContextVar[str] = ContextVar("share", default="")
