"""The windows of limits in memory: answers the questions of gateways as the SQL does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from chassis.errors import DatabaseUnavailable
from gateway.http.rates import RateClass
from gateway.limits.leases import SHARE_OF_FREE, Question, Standing


class RateWindows:
    """What all gateways have taken and spent; `is_away` refuses questions, `late_s` delays the answers."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, RateClass, int], Standing] = {}
        self.is_away = False
        self.late_s = 0.0
        self.statements = self.most_at_once = 0

    async def ask(self, rate: RateClass, asked: Sequence[Question]) -> Mapping[str, Standing]:
        """Answer the questions of one class and window."""
        self.statements += 1
        self.most_at_once = max(self.most_at_once, len(asked))
        await asyncio.sleep(self.late_s)
        if self.is_away:
            raise DatabaseUnavailable("The database is away.")
        return {one.who: self.answer(rate, one) for one in asked}

    def answer(self, rate: RateClass, asked: Question) -> Standing:
        """Answer one question."""
        most, name = asked.most, (asked.who, rate, asked.starts_at)
        row = self.rows.get(name)
        if row is None:
            unleased = max(0, -asked.back)
            granted = max(0, min(most - unleased, asked.need))
            self.rows[name] = Standing(unleased + granted, asked.spent, granted)
            return self.rows[name]
        free = most - row.taken + asked.back
        granted = max(0, min(free, max(asked.need, min(asked.wish, free // SHARE_OF_FREE))))
        self.rows[name] = Standing(row.taken - asked.back + granted, row.spent + asked.spent, granted)
        return self.rows[name]
