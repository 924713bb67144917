"""The error that ends a command; the message says what happened, to what, and what to do."""

from __future__ import annotations

NOTHING_RUNS = "Nothing runs: start the stack first (`make run`, `make up` or `make k8s-local`)."


class UpkeepError(Exception):
    """A command cannot do what was asked; the message is shown to the user as it is."""
