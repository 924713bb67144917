"""Templates as mails name them, and the versions that they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias


class Wanted(NamedTuple):
    """A template as a mail of `owner_id` names it: without a version the newest."""

    owner_id: str
    name: str
    version: int | None


# The version that each means, where there is one.
Versions: TypeAlias = Mapping[Wanted, int]
