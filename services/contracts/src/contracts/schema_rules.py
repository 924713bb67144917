"""Rules over several members of an object, as JSON Schema says them, for those who read the reference."""

from __future__ import annotations

from contracts.message import Json


def lacks_all(*names: str) -> dict[str, Json]:
    """Return the schema of objects in which each of `names` is absent or null."""
    return {"properties": {name: {"type": "null"} for name in names}}


def has_all(*names: str) -> dict[str, Json]:
    """Return the schema of objects in which none of `names` is absent or null."""
    return {"required": [*names], "properties": {name: {"not": {"type": "null"}} for name in names}}
