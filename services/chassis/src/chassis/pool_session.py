"""A connection of a pool, and how it is released."""

from __future__ import annotations

from typing import Any, cast

import asyncpg

from chassis import queries

_SQL = queries.of("chassis")


class PoolSession(asyncpg.Connection):
    """A connection that knows whether its last statement was parsed but not executed.

    Asyncpg parses a new statement, waits for the types of its arguments, and then executes it. The server
    opens a transaction to parse it, and does not report that until it executes it. In between, a deadline
    can pass, or an argument can turn out not to fit.
    """

    _protocol: Any
    _parsed_after: int | None = None

    async def _get_statement(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super()._get_statement(*args, **kwargs)  # type: ignore[misc]  # not in the stubs
        finally:
            if not self.is_closed():
                self._parsed_after = self._protocol.queries_count

    def is_unfinished(self) -> bool:
        """Return whether nothing was executed since a statement was parsed."""
        return bool(self._parsed_after == self._protocol.queries_count)


async def end_unfinished(session: asyncpg.Connection[asyncpg.Record]) -> None:
    """Release a connection without a query to the server, which would double the round trips.

    The pool has rolled back what the server reported as open. Whatever else the statements of the services
    set or lock ends with their transaction. Only the transaction of a statement that was parsed but not
    executed is still open, with its locks. No time-out of the server ends it, but a statement does.
    """
    if cast(PoolSession, session).is_unfinished():
        await session.execute(_SQL["probe_read"])
