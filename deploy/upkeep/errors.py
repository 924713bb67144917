"""The error that ends a command; the message says what happened, to what, and what to do."""

from __future__ import annotations

NOTHING_RUNS = "Nothing runs: start the stack first (`make run`, `make up` or `make k8s-local`)."


class UpkeepError(Exception):
    """A command cannot do what was asked; the message is shown to the user as it is."""


def variable_wins(variable: str) -> UpkeepError:
    """Return the error for a secret that a variable sets: the next start would bring its old value back."""
    return UpkeepError(
        f"{variable} is set in .env or in the environment, which takes precedence: change it there, or "
        "remove it there and start the stack again before you repeat this."
    )
