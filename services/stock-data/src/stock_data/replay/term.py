"""The term of one leader of the feed."""

from __future__ import annotations

from dataclasses import dataclass

from stock_data.replay.board import ReplayPosition


@dataclass(frozen=True, slots=True)
class Term:
    """The term of one leader: its number, higher than all before, and where the replay was when it began."""

    number: int
    position: ReplayPosition | None
