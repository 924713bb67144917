"""Turns in which connections read and end: thousands of them may do so in one pass of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from chassis.http1.exchange import HttpExchange
from chassis.loop_turns import LoopTurns

# Weights, in the units of `LoopTurns`.
_WEIGHT_OF_A_HEAD = 5
_WEIGHT_OF_AN_UPGRADE = 25
_WEIGHT_OF_AN_END = 15


class ReadingTurn:
    """The turn of one connection to `read`. It `is_due` from its request until it begins."""

    def __init__(self, turns: LoopTurns, loop: asyncio.AbstractEventLoop, read: Callable[[], None]) -> None:
        self.is_due = False
        self._turns = turns
        self._loop = loop
        self._read = read

    def want_head(self, payer: str) -> None:
        """Read a head now if this pass of the loop has room, else in a turn of the `payer`."""
        if not self.is_due:
            self.is_due = True
            self._wait_for_turn(payer)

    def want(self, payer: str, *, is_in_body: bool) -> None:
        """Read after other connections: more of a body in the next pass, a head in a turn of the `payer`."""
        if not self.is_due:
            self.is_due = True
            if is_in_body:
                self._loop.call_soon(self.begin)
            else:
                self._loop.call_soon(self._wait_for_turn, payer)

    def begin(self) -> None:
        """Read now."""
        self.is_due = False
        self._read()

    def end(self, payer: str, exchange: HttpExchange) -> None:
        """Disconnect a request: thousands of one client may lose theirs at once, and each is cancelled."""
        exchange.drop_rest()
        self._turns.run(payer, exchange.disconnect, weight=_WEIGHT_OF_AN_END)

    def charge_upgrade(self) -> None:
        """Count the head that was just read as an upgrade, which takes much longer."""
        self._turns.charge(_WEIGHT_OF_AN_UPGRADE)

    def _wait_for_turn(self, payer: str) -> None:
        self._turns.run(payer, self.begin, weight=_WEIGHT_OF_A_HEAD)
