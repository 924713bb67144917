"""Templates as mails name them, and the versions that they resolve to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias


class Wanted(NamedTuple):
    """A template as a mail of `owner_id` names it; without a version, the newest is meant."""

    owner_id: str
    name: str
    version: int | None


# The version that each resolves to; those that do not exist are missing.
Versions: TypeAlias = Mapping[Wanted, int]
