"""Pages of lists: read one element more than fits, and it is known whether another page follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
P = TypeVar("P")


def page_of(found: list[T], limit: int, place: Callable[[T], P]) -> tuple[list[T], P | None]:
    """Return the first `limit` of `found`, and the `place` of the last of them if there are more.

    The place is where the next page begins; None means that no other page follows.
    """
    page = found[:limit]
    return page, place(page[-1]) if len(found) > len(page) else None
