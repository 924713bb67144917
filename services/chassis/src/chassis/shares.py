"""The owner for whom work is done, and the rule by which owners share a number of places."""

from __future__ import annotations

from contextvars import ContextVar

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
