"""The rule that somebody can always administer the installation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from chassis.errors import Conflict
from chassis.postgres import Connection


class Administrators:
    """Guards changes that could take the last administrator away.

    A working administrator is an active user with the role admin and a usable key with the scope admin. A
    key that will expire does not keep the installation administrable for ever, so where there is a key
    without an expiry, one must remain.
    """

    def __init__(self, queries: Mapping[str, str]) -> None:
        self._queries = queries

    @asynccontextmanager
    async def kept(self, connection: Connection) -> AsyncIterator[None]:
        """Raise `Conflict` after the block when its changes removed the last working administrator.

        The changes are made in a transaction, which the error rolls back. Such changes run one after the
        other: two administrators who revoke each other at the same time cannot both succeed.
        """
        await connection.execute(self._queries["lock_administrators"])
        before = await connection.fetchrow(self._queries["count_administrators"])
        yield
        after = await connection.fetchrow(self._queries["count_administrators"])
        assert before is not None
        assert after is not None
        if before["working"] and not after["working"]:
            raise Conflict(
                "This would end the last key that administers the installation, with all keys that it made. "
                "Give another active administrator a key of its own first (python -m gateway.identity.reset)."
            )
        if before["lasting"] and not after["lasting"]:
            raise Conflict(
                "This would leave only administrators' keys that expire. Make one without an expiry first "
                "(python -m gateway.identity.reset)."
            )
