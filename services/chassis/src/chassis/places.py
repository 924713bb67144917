"""Places for concurrent work: a few for each owner, and more in total."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from chassis import shares
from chassis.errors import Overloaded, TooManyAtOnce

_RETRY_AFTER_S = 2


class Places:
    """`of_owner` places for each owner, and `most` in total; `what` names in the plural what takes them.

    Owners that have some leave places for those that have none (`shares.has_room`).
    """

    def __init__(self, what: str, *, of_owner: int, most: int | None = None) -> None:
        self._what = what
        self._of_owner = of_owner
        self._most = most
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """The number of places that are taken now."""
        return self._taken.total()

    def taken_by(self, owner_id: str) -> int:
        """Return the number of places that the owner has now."""
        return self._taken[owner_id]

    @contextmanager
    def hold(self, owner_id: str) -> Iterator[None]:
        """Hold a place of the owner during the block.

        Raise `TooManyAtOnce` when the owner has its share, `Overloaded` when all places are taken.
        """
        own = self._taken[owner_id]
        if own >= self._of_owner:
            raise TooManyAtOnce(
                f"You may have {self._of_owner} {self._what} at once; wait for one to end.",
                retry_after_s=_RETRY_AFTER_S,
            )
        if self._most is not None and not shares.has_room(own, held=self.taken, most=self._most):
            if own:
                raise TooManyAtOnce(
                    f"You have {own} {self._what} at once, and the other places are for other owners; wait"
                    " for one to end.",
                    retry_after_s=_RETRY_AFTER_S,
                )
            raise Overloaded(
                f"All owners together may have {self._most} {self._what} at once; try again in a moment.",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._taken[owner_id] += 1
        try:
            yield
        finally:
            self._taken[owner_id] -= 1
            if not self._taken[owner_id]:
                del self._taken[owner_id]
