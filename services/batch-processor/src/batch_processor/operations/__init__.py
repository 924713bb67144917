"""The operations on offer, found by the entry point group `tickwire.operations`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from batch_processor.operation import Operation

GROUP = "tickwire.operations"


class InvalidOperation(Exception):
    """An entry point of the group does not lead to an `Operation` of its own name."""


def discover() -> Mapping[str, Operation]:
    """Return all installed operations by name.

    One that cannot be imported ends the start: a service that silently lacks it would fail batches.
    """
    return {entry.name: _load(entry) for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name)}


def _load(entry: EntryPoint) -> Operation:
    operation = entry.load()
    if not isinstance(operation, Operation) or operation.name != entry.name:
        raise InvalidOperation(f"{entry.value} is not an operation named {entry.name!r}")
    return operation
