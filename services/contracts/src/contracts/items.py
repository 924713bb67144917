"""The items of a batch and their limits: the same for every interface that takes batches."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from contracts.message import Contract, Json

MOST_ITEMS = 5_000_000
# The limit of one JSON document, which is checked as a whole.
MOST_ITEMS_OF_DOCUMENT = 100_000
MOST_LINE_BYTES = 256 * 1024
MOST_CUSTOM_ID = 255
OPERATION_NAME = r"^[a-z][a-z0-9_.-]{0,99}$"

OperationName = Annotated[str, Field(pattern=OPERATION_NAME)]


class Item(Contract):
    """One unit of work: the payload for the operation, and the caller's own name for it."""

    custom_id: str | None = None
    payload: Json = None


def require_custom_id(value: object) -> str | None:
    """Return `value` if it is a valid custom id or None. Raise `ValueError`."""
    if value is None:
        return None
    if isinstance(value, str) and 1 <= len(value) <= MOST_CUSTOM_ID:
        return value
    raise ValueError(f"custom_id must be a string of 1 to {MOST_CUSTOM_ID} characters")


def is_wrapped(value: Json) -> bool:
    """Return whether `value` is a complete item: an object with `payload` and optionally `custom_id`."""
    # Not by comparing sets, which takes three times as long; an upload has a million items.
    return (
        isinstance(value, dict)
        and "payload" in value
        and (len(value) == 1 or (len(value) == 2 and "custom_id" in value))
    )


def custom_id_of(value: Json) -> str | None:
    """Return the custom id of a complete item, None for only a payload. Raise `ValueError` for a bad one."""
    return require_custom_id(value.get("custom_id")) if is_wrapped(value) else None


def payload_of(value: Json) -> Json:
    """Return the payload of a complete item; any other value is only a payload."""
    return value["payload"] if is_wrapped(value) else value
