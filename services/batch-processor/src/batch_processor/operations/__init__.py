"""The operations on offer, found by the entry point group `tickwire.operations`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from batch_processor.operation import Operation

GROUP = "tickwire.operations"


class InvalidOperation(Exception):
    """An entry point of the group does not lead to an `Operation` of its own name."""


@functools.cache
def installed() -> Mapping[str, EntryPoint]:
    """Return the entry points of the installed operations by name; they are looked for once."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def load(name: str) -> Operation:
    """Return the installed operation `name`. Raise `InvalidOperation` when there is none."""
    if name not in installed():
        installed.cache_clear()
    entry = installed().get(name)
    operation = entry.load() if entry is not None else None
    if not isinstance(operation, Operation) or operation.name != name:
        led_to = entry.value if entry is not None else "nothing installed"
        raise InvalidOperation(f"{led_to} is not an operation named {name!r}")
    return operation


def discover() -> Mapping[str, Operation]:
    """Return all installed operations by name.

    One that cannot be imported ends the start: a service that silently lacks it would fail batches.
    """
    return {name: load(name) for name in installed()}
