"""Rules over several members of an object, as JSON Schema says them, for those who read the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contracts.message import Json

# A keyword of our own for what JSON Schema cannot say: the items of several lists are at most so many.
# Validators that do not know it ignore it.
MOST_TOGETHER = "x-max-items-together"


def lacks_all(*names: str) -> dict[str, Json]:
    """Return the schema of objects in which each of `names` is absent or null."""
    return {"properties": {name: {"type": "null"} for name in names}}


def has_all(*names: str) -> dict[str, Json]:
    """Return the schema of objects in which none of `names` is absent or null."""
    return {"required": [*names], "properties": {name: {"not": {"type": "null"}} for name in names}}


def most_together(*names: str, most: int, description: str) -> dict[str, Json]:
    """Return the schema of objects in which the lists `names` have at most `most` items together.

    A list may be given as a single text instead, which counts as one item.
    """
    # Validators compare this much faster than they call others for a keyword of ours.
    share = most // len(names) + 1
    has_many: list[Json] = [
        {"required": [name], "properties": {name: {"type": "array", "minItems": share}}} for name in names
    ]
    rule: dict[str, Json] = {MOST_TOGETHER: {"names": [*names], "most": most}}
    return {"if": {"anyOf": has_many}, "then": {"description": description, **rule}}


def count_together(document: Mapping[str, Any], names: Sequence[str]) -> int:
    """Return how many items the members `names` of an object have together, each a list or a single text."""
    members = [document.get(name) for name in names]
    return sum(len(member) if isinstance(member, list) else isinstance(member, str) for member in members)
