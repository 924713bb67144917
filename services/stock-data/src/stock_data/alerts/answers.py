"""Answers to requests about alerts: each owner sees and deletes only its own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from chassis.deadlines import Deadline
from chassis.errors import InvalidInput, NotFound
from chassis.paging import page_of
from chassis.postgres import Postgres
from contracts.alerts import (
    Alert,
    Alerts,
    CreateAlert,
    DeleteAlert,
    Firings,
    GetAlert,
    ListAlerts,
    ListFirings,
)
from contracts.message import FieldError
from stock_data import symbols
from stock_data.alerts import repository
from stock_data.alerts.index import day_of
from stock_data.alerts.watched import UNKNOWN, side_of, value_of
from stock_data.errors import NoLiveFeed, TooManyAlerts, UnknownSymbol
from stock_data.instruments import InstrumentIndex
from stock_data.replay.board import Board

_NO_EPOCH = "none"


class AlertAnswers:
    """Creates, returns and deletes alerts. Another owner's alert is reported as not found."""

    def __init__(
        self,
        postgres: Postgres,
        *,
        index: InstrumentIndex,
        board: Board,
        has_feed: bool,
        most_of_owner: int,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._postgres = postgres
        self._index = index
        self._board = board
        self._has_feed = has_feed
        self._most_of_owner = most_of_owner
        # Called when an alert was stored or deleted.
        self._changed = changed

    async def create(self, request: CreateAlert, _: Deadline) -> Alert:
        """Store an alert, which is watched within a second.

        The alert starts on the side of the threshold where the price is now; crossings count from here on.
        Raise `NoLiveFeed`, `UnknownSymbol` or `TooManyAlerts`.
        """
        if not self._has_feed:
            raise NoLiveFeed
        symbol, now = symbols.parse(request.symbol), datetime.now(UTC)
        if self._index.find(symbol) is None:
            raise UnknownSymbol(symbol, suggestions=self._index.similar(symbol))
        if request.expires_at is not None and request.expires_at <= now:
            error = FieldError(pointer="/expires_at", detail="must be in the future")
            raise InvalidInput("expires_at must be in the future", errors=[error])
        wanted = request.model_copy(update={"symbol": symbol})
        condition, quote = request.condition, self._board.get(symbol, now)
        value = None if quote is None else value_of(condition.kind, quote)
        side = UNKNOWN if value is None else side_of(condition.kind, condition.threshold, value)
        async with self._postgres.transaction() as connection:
            await repository.lock_owner(connection, request.owner_id)
            if request.request_key is not None:
                known = await repository.find_of_request(connection, request.owner_id, request.request_key)
                if known is not None:
                    return known
            if await repository.count_armed(connection, request.owner_id) >= self._most_of_owner:
                raise TooManyAlerts(self._most_of_owner)
            day = None if quote is None else day_of(quote)
            made = await repository.insert(connection, wanted, side=side, day=day)
        self._changed()
        return made

    async def get(self, request: GetAlert, _: Deadline) -> Alert:
        """Return an alert. Raise `NotFound`."""
        async with self._postgres.connection() as connection:
            found = await repository.get(connection, request.alert_id, request.owner_id)
        if found is None:
            raise NotFound(f"There is no alert {request.alert_id}.")
        return found

    async def delete(self, request: DeleteAlert, _: Deadline) -> Alert:
        """Delete an alert, and return its last state. Raise `NotFound`."""
        async with self._postgres.connection() as connection:
            found = await repository.delete(connection, request.alert_id, request.owner_id)
        if found is None:
            raise NotFound(f"There is no alert {request.alert_id}.")
        self._changed()
        return found

    async def list(self, request: ListAlerts, _: Deadline) -> Alerts:
        """Return a page of the owner's alerts, newest first."""
        async with self._postgres.connection() as connection:
            found = await repository.page(connection, request, limit=request.limit + 1)
        page, following = page_of(found, request.limit, lambda alert: alert.id)
        return Alerts(data=page, next_cursor=following)

    async def firings(self, request: ListFirings, _: Deadline) -> Firings:
        """Return firings of the owner, and the position of the newest."""
        async with self._postgres.connection() as connection:
            owner = await repository.find_owner(connection, request.owner_id)
            if owner is None:
                return Firings(epoch=_NO_EPOCH, offset=0, data=[])
            epoch, offset = owner
            found = await repository.firings(
                connection,
                request.owner_id,
                after=0 if request.after is None else request.after,
                # Firings newer than the position are not part of this answer.
                before=offset + 1 if request.before is None else min(request.before, offset + 1),
                newest_first=request.newest_first,
                limit=request.limit,
            )
        return Firings(epoch=epoch, offset=offset, data=found)
