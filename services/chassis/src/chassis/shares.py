"""The owner for whom work is done, and the rule by which owners share a number of places."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TypeVar

Work = TypeVar("Work")

# Empty for what a service does for itself, which takes no owner's share.
current: ContextVar[str] = ContextVar("share", default="")

# One divided by the part of all places that is reserved for owners that have none, or few.
_RESERVE = 8


def has_room(own: int, *, held: int, most: int, few: int = 1, weight: int = 1) -> bool:
    """Return whether an owner with `own` of the `held` places may have one more of `most`.

    The last eighth is reserved for owners with fewer than `few`. Of the rest, an owner has no more than
    `weight` times what it leaves free: with a weight of one half when it is alone, a third beside another
    owner that wants as much, and so on. However many want more, some is left for the next owner.
    """
    if own < few:
        return held < most
    return own < weight * (most - most // _RESERVE - held)


def has_room_for(size: int, *, own: int, held: int, most: int) -> bool:
    """Return whether an owner with `own` of the `held` bytes may have `size` more of `most`.

    An owner that has none gets what is free, also from the reserve. Another one has no more afterwards than
    it leaves free beside the reserve.
    """
    after = held + size
    return after <= most and (not own or has_room(own + size - 1, held=after, most=most))


def parts_of(group: Sequence[Work], owner_of: Callable[[Work], str]) -> list[list[Work]]:
    """Return the parts in which a group that has failed is tried again, so that only one of them fails.

    Each owner's work is a part, the smallest first, so that nobody waits for an owner with many failures. The
    work of a single owner is divided into single pieces.
    """
    owners = defaultdict[str, list[Work]](list)
    for one in group:
        owners[owner_of(one)].append(one)
    if len(owners) == 1:
        return [[one] for one in group]
    return sorted(owners.values(), key=len)
