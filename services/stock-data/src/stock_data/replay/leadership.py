"""The election of the one replica that runs the feed, and the state that outlives it: term and position.

An advisory lock elects the leader. The winner raises the number of the term in the database; that number is
the epoch of its ticks, so that late ticks of an old leader can be distinguished from those of its successor.
A leader that loses its connection continues: it is deposed only by a later term, which it finds in the
database or in the ticks of its successor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import date
from typing import Any, TypeAlias

import asyncpg

from chassis import beats, logging, redaction, supervision
from chassis.database_outages import AWAY
from chassis.errors import DatabaseUnavailable
from chassis.postgres import Dsn
from contracts.stocks import epoch_number
from stock_data.replay import repository
from stock_data.replay.board import Board, ReplayPosition
from stock_data.replay.term import Term

log = logging.get(__name__)

_Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_TIMEOUT_S = 3
# The server must notice a leader whose machine vanished, or nobody could take over.
_SERVER_SETTINGS = {
    "application_name": "stock-data feed",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
_LOST = (*AWAY, asyncpg.PostgresError, DatabaseUnavailable, TimeoutError)


class Leadership:
    """Competes for leadership on its own connection, and saves the position every `save_s` seconds."""

    def __init__(self, dsn: Dsn, *, board: Board, start_day: date, save_s: float = 0.5) -> None:
        self._dsn = dsn if callable(dsn) else lambda: dsn
        self._board = board
        self._start_day = start_day
        self._save_s = save_s
        self._connection: _Connection | None = None
        self._has_lock = False
        self._is_away = False
        # The position that was saved last, and whether the last save was left out because it was the same.
        self._saved: tuple[int, ReplayPosition | None] | None = None
        self._was_skipped = False

    async def run_while_leader(self, work: Callable[[Term], Coroutine[Any, Any, None]]) -> None:
        """Compete until cancelled; after each election run `work` until it ends or a later term begins."""
        try:
            while True:
                term = await self._try_win()
                if term is not None:
                    await self._run_term(term, work)
                    self._disconnect()
                await asyncio.sleep(self._save_s)
        finally:
            self._disconnect()

    async def _try_win(self) -> Term | None:
        """Return a new term if the lock is free."""
        heard = epoch_number(self._board.epoch or "") or 0
        try:
            connection = await self._locked()
            if not self._has_lock:
                return None
            row = await repository.begin_term(connection, heard=heard, start_day=self._start_day)
        except _LOST as error:
            self._lose(error)
            return None
        positions = [self._board.position] if row["is_same_replay"] else []
        if row["replayed"] is not None:
            positions.append(ReplayPosition(row["replayed"], row["shown_at"]))
        known = [position for position in positions if position is not None]
        return Term(row["term"], max(known, key=lambda each: each.shown_at, default=None))

    async def _run_term(self, term: Term, work: Callable[[Term], Coroutine[Any, Any, None]]) -> None:
        """Run `work`, and save the position meanwhile; the end of `work` or a later term ends both."""
        task = asyncio.create_task(work(term))
        try:
            while not (await asyncio.wait([task], timeout=beats.due_in_s(self._save_s)))[0]:
                if not await self._save(term):
                    log.warning("another replica has taken over the feed", term=term.number)
                    return
            task.result()
        finally:
            await supervision.end([task])

    async def _save(self, term: Term) -> bool:
        """Save the position; return False when the database knows a later term.

        The same position is left out once, but not twice in a row: the database also tells of a later term.
        """
        # Until the first tick of the term, the board has the position of the leader before.
        position = self._board.position if self._board.epoch == str(term.number) else None
        self._was_skipped = self._saved == (term.number, position) and not self._was_skipped
        if self._was_skipped:
            return True
        try:
            connection = await self._locked()
            is_latest = await repository.save_position(connection, term.number, position)
        except _LOST as error:
            self._lose(error)
            return True
        self._saved = (term.number, position)
        return is_latest

    async def _locked(self) -> _Connection:
        """Return the connection, made anew after a loss, with the lock if it is free."""
        if self._connection is None:
            self._connection = await asyncpg.connect(
                self._dsn(), timeout=_TIMEOUT_S, command_timeout=_TIMEOUT_S, server_settings=_SERVER_SETTINGS
            )
            self._is_away = False
        if not self._has_lock:
            self._has_lock = await repository.try_lock(self._connection)
        return self._connection

    def _lose(self, error: BaseException) -> None:
        """Drop a failed connection, and log it once per outage of the database."""
        if not self._is_away:
            log.warning("the feed has no connection to its database", reason=redaction.safe_message(error))
        self._is_away, self._saved = True, None
        self._disconnect()

    def _disconnect(self) -> None:
        """End the session at once, which releases the lock."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection, self._has_lock = None, False
