"""The history that is shipped with the service: imported once, and read from the database."""

from __future__ import annotations

from datetime import date

from chassis import logging, metrics
from chassis.postgres import Postgres
from stock_data.history import dataset, repository
from stock_data.history.bars import DailyBar, Listing
from stock_data.history.dataset import Dataset

log = logging.get(__name__)


class ShippedHistory:
    """Reads bars and instruments, and imports history. Every method may raise `DatabaseUnavailable`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def bars(self, symbol: str, start: date, end: date, *, limit: int) -> list[DailyBar]:
        """Return the first `limit` bars of the days `start` to `end`, oldest first."""
        async with self._postgres.connection() as connection:
            return await repository.find_bars(connection, symbol, start, end, limit=limit)

    async def listings(self) -> list[Listing]:
        """Return every instrument that has bars, by symbol."""
        async with self._postgres.connection() as connection:
            return await repository.find_listings(connection)

    async def import_dataset(self, data: Dataset) -> int:
        """Import the embedded history into the database once, and return how many bars were written."""
        async with self._postgres.transaction() as connection:
            count = await repository.import_dataset(connection, data)
        if count:
            metrics.BARS_IMPORTED.labels(dataset.SOURCE).inc(count)
            log.info("history imported", dataset=dataset.NAME, bars=count)
        return count
