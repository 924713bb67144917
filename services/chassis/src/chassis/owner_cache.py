"""A cache in which each owner has a share: what one of them stores leaves what others use where it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)
Value = TypeVar("Value")


class OwnerCache(Generic[Name, Value]):
    """Remembers values by owner and name: `of_owner` of each owner, and `most` in total.

    An owner that has used up its share loses the value of its own that was stored the longest ago. With more
    than `most` of all owners together, that is whosever was stored the longest ago.
    """

    def __init__(self, *, most: int, of_owner: int) -> None:
        self._most = most
        self._of_owner = of_owner
        # What was stored the longest ago comes first, here and among the names of each owner.
        self._values: OrderedDict[tuple[str, Name], Value] = OrderedDict()
        self._shares: dict[str, OrderedDict[Name, None]] = {}

    def __len__(self) -> int:
        return len(self._values)

    @property
    def oldest(self) -> tuple[str, Name, Value] | None:
        """The owner, name and value of what was stored the longest ago; None when there is nothing."""
        for (owner_id, name), value in self._values.items():
            return owner_id, name, value
        return None

    def get(self, owner_id: str, name: Name) -> Value | None:
        """Return the value of `name` of this owner, if it is remembered."""
        return self._values.get((owner_id, name))

    def store(self, owner_id: str, name: Name, value: Value) -> None:
        """Remember `value` in place of what was stored under this name of the owner."""
        self.forget(owner_id, name)
        share = self._shares.setdefault(owner_id, OrderedDict())
        self._values[owner_id, name], share[name] = value, None
        if len(share) > self._of_owner:
            self.forget(owner_id, next(iter(share)))
        elif len(self._values) > self._most:
            self.forget(*next(iter(self._values)))

    def forget(self, owner_id: str, name: Name) -> None:
        """Forget the value of `name` of this owner, whether it is remembered or not."""
        if (owner_id, name) not in self._values:
            return
        del self._values[owner_id, name]
        share = self._shares[owner_id]
        del share[name]
        if not share:
            del self._shares[owner_id]
