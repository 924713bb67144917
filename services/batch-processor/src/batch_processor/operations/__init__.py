"""The operations on offer, found by the entry point group `tickwire.operations`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points

from batch_processor.operation import Operation

GROUP = "tickwire.operations"


class InvalidOperation(Exception):
    """An entry point of the group does not lead to an `Operation` of its own name."""


def discover() -> Mapping[str, Operation]:
    """Return all installed operations by name.

    One that cannot be imported ends the start: a service that silently lacks it would fail batches.
    """
    found: dict[str, Operation] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        operation = entry.load()
        if not isinstance(operation, Operation) or operation.name != entry.name:
            raise InvalidOperation(f"{entry.value} is not an operation named {entry.name!r}")
        found[entry.name] = operation
    return found
