"""The installed operations, found by the entry point group `tickwire.operations`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from itertools import pairwise

from batch_processor.operation import Operation

GROUP = "tickwire.operations"


class InvalidOperation(Exception):
    """An entry point of the group does not lead to an `Operation` of the same name, or two have one name."""


@functools.cache
def installed() -> Mapping[str, EntryPoint]:
    """Return the entry points of the installed operations by name; search for them only once.

    Raise `InvalidOperation` for a name that two packages have: one of them would silently replace the other.
    """
    found = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    for one, other in pairwise(found):
        if one.name == other.name:
            raise InvalidOperation(
                f"The packages {_package_of(one)} and {_package_of(other)} both have an operation "
                f"{one.name!r}: give one of them another name, or uninstall its package."
            )
    return {entry.name: entry for entry in found}


def load(name: str) -> Operation:
    """Return the installed operation `name`. Raise `InvalidOperation` when it is missing or broken."""
    if name not in installed():
        installed.cache_clear()
    entry = installed().get(name)
    if entry is None:
        raise InvalidOperation(
            f"No operation {name!r} is installed; there are {', '.join(installed())}. "
            "After a change of the entry point in pyproject.toml, reinstall the package."
        )
    package = _package_of(entry)
    try:
        operation = entry.load()
    except Exception as error:
        raise InvalidOperation(
            f"The operation {name!r} of the package {package} cannot be imported from {entry.value}: "
            f"{error!r}. Fix the package, or uninstall it: pip uninstall {package}"
        ) from error
    if not isinstance(operation, Operation):
        raise InvalidOperation(
            f"The entry point {name!r} of {package} leads to {entry.value}, which is not made by @operation."
        )
    if operation.name != name:
        raise InvalidOperation(
            f"The entry point {name!r} of {package} leads to {entry.value}, an operation named "
            f"{operation.name!r}: the two names must be equal."
        )
    return operation


def discover() -> Mapping[str, Operation]:
    """Return all installed operations by name.

    Raise `InvalidOperation` for one that cannot be imported: a service that lacked it would fail batches.
    """
    return {name: load(name) for name in installed()}


def _package_of(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unknown package"
