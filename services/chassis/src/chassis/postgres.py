"""The service's own PostgreSQL database: a bounded pool that survives outages of the server."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from asyncpg.transaction import Transaction

from chassis import beats, logging, metrics, queries, redaction, shares
from chassis.database_outages import AWAY, ENDED, UNWRITABLE
from chassis.errors import DatabaseUnavailable
from chassis.pool_growth import PoolGrowth
from chassis.pool_session import PoolSession, end_unfinished
from chassis.turns import OwnerTurns

log = logging.get(__name__)

Row: TypeAlias = asyncpg.Record
# An address with a login, or what returns the one of now: a password may be changed while the process runs.
Dsn: TypeAlias = str | Callable[[], str]
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

# A statement that took too long says nothing about the server; `ping` finds out whether that answers.
_LATE = (TimeoutError, asyncpg.QueryCanceledError)
# The database aborted a transaction that conflicted with another, as in a deadlock: it may be repeated.
TRANSACTION_CONFLICTS = (asyncpg.TransactionRollbackError,)
# The errors of a unit of work for which the database is unreachable, rejects a statement, or is late.
DATABASE_FAILURES = (DatabaseUnavailable, asyncpg.PostgresError, TimeoutError)
_PROBE_BYTES = 64 * 1024
_SQL = queries.of("chassis")
_PAUSE_S = (0.1, 0.2, 0.5, 1.0, 2.0)
# The locks of a client that has vanished are held until the server notices. The longest time for which a
# transaction is rightly idle is the relay's wait for confirms, 5 s.
FOR_LOST_CLIENTS = {
    "idle_in_transaction_session_timeout": "15000",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
# The server holds some MiB for each connection; opening a new one takes milliseconds.
_KEPT_IDLE_S = 60
# It also caches for each connection all that its statements have used: 10 MiB after some work.
_RENEWED_AFTER_S = 600
_PING_TIMEOUT_S = 2
_LATE_S = 0.5
# Periodic statements begin on the full second: one that still waits so much later is a reason to ask.
_LOOK_BEHIND_S = 0.25
_CLEAN_UP_TIMEOUT_S = 1
MOST_WAITING_OF_OWNER = 512
# So many connections of a pool are never lent to owners, however many of them ask at once.
RESERVED = 2


class Postgres:
    """A pool of at most `size` connections; every acquire and every statement has a time-out in seconds.

    Owners have all but `RESERVED` of them together (a pool of two or three lends them one). The owner in
    `shares.current` has a share of these, and waiting owners take turns. What a service does for itself
    counts in no owner's share.

    Every second, unless statements were just answered and none waits, a separate connection outside the pool
    checks whether the server answers. While it is down, nothing waits for it: `connection` fails at once, and
    waiting statements end. It counts as down when it refuses connections, or was silent at two looks in a
    row: on a busy machine, silence for two seconds says little.
    """

    def __init__(
        self,
        dsn: Dsn,
        *,
        size: int = 12,
        acquire_timeout_s: float = 3,
        statement_timeout_s: float = 15,
        renewed_after_s: float = _RENEWED_AFTER_S,
        shrinks_after_s: float = _KEPT_IDLE_S,
    ) -> None:
        self._dsn = dsn if callable(dsn) else lambda: dsn
        self._size = size
        self._renewed_after_s = renewed_after_s
        self.acquire_timeout_s = acquire_timeout_s
        self._statement_timeout_s = statement_timeout_s
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._reason: str | None = "not connected yet"
        self._probe: asyncpg.Connection[asyncpg.Record] | None = None
        self._asking = asyncio.Lock()
        self._asked_at = 0.0
        # How many looks in a row were not answered, and whether the server counts as down for it.
        self._missed = 0
        self._is_down = False
        # When a statement of the pool was last answered, and when that was last looked at.
        self._answered_at = self._looked_at = 0.0
        self._renewed_at = time.monotonic()
        self._must_write = False
        for_owners = max(1, size - RESERVED)
        self._turns = OwnerTurns(
            most=for_owners, of_owner=for_owners, most_waiting=MOST_WAITING_OF_OWNER, leaves_room=True
        )
        # Waited for in the order of arrival, by owners with a turn and by the service itself.
        self._free = asyncio.Semaphore(size)
        self._growth = PoolGrowth(shrinks_after_s=shrinks_after_s)
        # The connections that are lent, and since when.
        self._busy: dict[PoolConnectionProxy[asyncpg.Record], float] = {}
        self._doubted_at: float | None = None

    async def open(self) -> None:
        """Connect; wait for a server that cannot be reached, however long it takes."""
        for attempt in range(1_000_000_000):
            try:
                self._pool = await asyncpg.create_pool(
                    connect=self._connect,
                    min_size=1,
                    max_size=self._size,
                    timeout=5,
                    command_timeout=self._statement_timeout_s,
                    max_inactive_connection_lifetime=_KEPT_IDLE_S,
                    connection_class=PoolSession,
                    reset=end_unfinished,
                    server_settings={
                        "statement_timeout": str(int(self._statement_timeout_s * 1000)),
                        **FOR_LOST_CLIENTS,
                    },
                )
            except (*AWAY, asyncpg.InvalidCatalogNameError) as error:
                self._reason = f"cannot connect: {redaction.safe_message(error)}"
                log.warning("waiting for the database", reason=self._reason)
                await asyncio.sleep(_PAUSE_S[min(attempt, len(_PAUSE_S) - 1)])
            else:
                self._reason = None
                return

    async def renew(self) -> None:
        """Replace each connection that is open now before its next use."""
        self._renewed_at = time.monotonic()
        if self._pool is not None:
            await self._pool.expire_connections()

    async def close(self, timeout_s: float = 5) -> None:
        """Close all connections; those still busy after `timeout_s` seconds are aborted."""
        self._forget_probe()
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @property
    def in_use(self) -> int:
        """The number of connections that are lent."""
        return len(self._busy)

    def check(self) -> str | None:
        """Return why the database cannot be used now, for readiness."""
        return self._reason

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection for a few statements. Raise `DatabaseUnavailable` when there is none in time."""
        if self._pool is None or self._is_down:
            raise DatabaseUnavailable(
                "The database cannot be reached; try again in a few seconds.", retry_after_s=2
            )
        started = time.perf_counter()
        async with AsyncExitStack() as stack:
            share = shares.current.get()
            turn = self._turns.turn(share) if share else contextlib.nullcontext()
            try:
                async with asyncio.timeout(self.acquire_timeout_s):
                    await stack.enter_async_context(turn)
                    await stack.enter_async_context(self._free)
            except TimeoutError as error:
                # All are busy, which says nothing about the server: an owner cannot make the service unready,
                # nor raise an alert with requests beyond its share.
                if not self._turns.taken_by(share):
                    metrics.POOL_TIMEOUTS.inc()
                raise _none_free() from error
            try:
                connection = await self._growth.acquire(self._pool, timeout_s=self.acquire_timeout_s)
            except AWAY as error:
                self._fail(error)
                raise _none_free() from error
            metrics.POOL_WAIT_SECONDS.observe(time.perf_counter() - started)
            self._busy[connection] = time.monotonic()
            try:
                yield connection
                self._answered_at = time.monotonic()
            except AWAY as error:
                # Asyncpg also raises an InterfaceError for an argument that does not fit its column.
                if isinstance(error, ValueError) or (
                    isinstance(error, OSError) and not _is_from_driver(error)
                ):
                    raise
                if not isinstance(error, _LATE):
                    self._fail(error)
                raise DatabaseUnavailable(
                    "The database did not answer; try again in a few seconds.", retry_after_s=2
                ) from error
            except UNWRITABLE as error:
                # From now on a ping writes: a successful read would prove nothing.
                self._must_write = True
                self._fail(error)
                raise DatabaseUnavailable(
                    "The database accepts no writes; try again in a few seconds.", retry_after_s=5
                ) from error
            finally:
                self._busy.pop(connection, None)
                await self._release(self._pool, connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction that commits when the block succeeds."""
        async with self.connection() as connection:
            transaction = connection.transaction()
            # Entered rather than started: asyncpg reports an error when it rolls back a BEGIN that was
            # cancelled on its way, unless it knows of the block.
            await transaction.__aenter__()
            try:
                yield connection
            except BaseException as error:
                await _roll_back(transaction, connection, error)
                raise
            await transaction.__aexit__(None, None, None)

    async def ping(self) -> bool:
        """Return whether the database answers now; an answer clears the readiness reason of an outage."""
        async with self._asking:
            self._asked_at = asked_at = time.monotonic()
            is_new = self._probe is None
            try:
                async with asyncio.timeout(_PING_TIMEOUT_S):
                    await self._look()
            except UNWRITABLE as error:
                # Reads continue. The next probe connects to whichever server is the right one by then.
                self._forget_probe()
                self._fail(error)
                return False
            except (*AWAY, asyncpg.PostgresError) as error:
                is_new = is_new or self._probe is None
                self._forget_probe()
                if is_new and self._answered_at > asked_at:
                    # On a busy machine a new connection may be late while statements are answered.
                    self._doubted_at = time.monotonic()
                    return not self._missed
                if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
                    # It answers, and what is open goes on.
                    self._fail(error)
                    return not self._missed
                if time.monotonic() - asked_at < _PING_TIMEOUT_S + _LATE_S:
                    self._fail(error)
                    self._missed += 1
                    self._is_down = self._missed > 1 or not isinstance(error, TimeoutError)
                # Else this process itself was late: that says nothing about the server.
                if self._missed > 1:
                    self._cut_busy()
                return not self._missed
            if self._missed:
                # It answers again, on a new connection: older ones may be dead without having said so.
                self._missed, self._is_down = 0, False
                self._cut_busy()
                if self._pool is not None:
                    await self._pool.expire_connections()
            elif self._doubted_at is not None:
                # It answers, but not those that have waited since before.
                self._cut_busy(before=self._doubted_at)
            self._reason = self._doubted_at = None
            return True

    async def watch(self) -> None:
        """Look every second whether the server answers, for readiness, and count the pool's connections.

        Every minute, close those that are not needed. Every ten minutes, at a moment without a statement, let
        the connections be renewed.
        """
        while True:
            has_answered = self._answered_at > self._looked_at
            is_well = has_answered and not self._busy and self._reason is None
            self._looked_at = time.monotonic()
            if not is_well or self._missed:
                await self.ping()
            elif time.monotonic() - self._asked_at > _KEPT_IDLE_S:
                self._forget_probe()
            if not self._busy and time.monotonic() - self._renewed_at > self._renewed_after_s:
                await self.renew()
            if self._pool is not None:
                with contextlib.suppress(*AWAY, asyncpg.PostgresError):
                    await self._growth.shrink(self._pool)
                metrics.POOL_SIZE.labels("most").set(self._size)
                metrics.POOL_SIZE.labels("open").set(self._pool.get_size())
                metrics.POOL_SIZE.labels("idle").set(self._pool.get_idle_size())
            await beats.following(1, behind_s=_LOOK_BEHIND_S)

    async def _connect(self, *_: object, **options: Any) -> asyncpg.Connection[asyncpg.Record]:
        """Open a connection of the pool, which knows no address."""
        return await asyncpg.connect(self._dsn(), **options)

    async def _look(self) -> None:
        """Ask the server, on a new connection if the kept one has ended: that may be its end alone."""
        if self._probe is not None:
            with contextlib.suppress(*ENDED):
                await self._probe.execute(_SQL["probe_read"])
                await self._write(self._probe)
                return
            self._forget_probe()
        self._probe = await asyncpg.connect(self._dsn(), timeout=_PING_TIMEOUT_S)
        await self._probe.execute(_SQL["probe_read"])
        await self._write(self._probe)

    async def _write(self, probe: asyncpg.Connection[asyncpg.Record]) -> None:
        if not self._must_write:
            return
        transaction = probe.transaction()
        await transaction.start()
        # A database without an outbox belongs to no service whose writes could be waited for.
        with contextlib.suppress(asyncpg.UndefinedTableError):
            await probe.execute(_SQL["probe_write"], os.urandom(_PROBE_BYTES))
        await transaction.rollback()
        self._must_write = False
        if self._pool is not None:
            # The others may be connected to a server that no longer accepts writes.
            await self._pool.expire_connections()

    def _cut_busy(self, *, before: float = math.inf) -> None:
        # Statements that wait for an answer on these would wait until their time-out.
        for connection in [connection for connection, since in self._busy.items() if since < before]:
            del self._busy[connection]
            _cut(connection)

    def _forget_probe(self) -> None:
        if self._probe is not None:
            self._probe.terminate()
            self._probe = None

    async def _release(
        self, pool: asyncpg.Pool[asyncpg.Record], connection: PoolConnectionProxy[asyncpg.Record]
    ) -> None:
        try:
            await pool.release(connection, timeout=_CLEAN_UP_TIMEOUT_S)
        except AWAY as error:
            # The pool has aborted the connection that it could not reset; the caller's own outcome stands.
            if not isinstance(error, _LATE):
                self._fail(error)
        finally:
            self._growth.returned()

    def _fail(self, error: BaseException) -> None:
        self._reason = redaction.safe_message(error)


def _none_free() -> DatabaseUnavailable:
    return DatabaseUnavailable(
        "No connection to the database was free in time; try again in a few seconds.", retry_after_s=2
    )


def affected_rows(tag: str) -> int:
    """Return the number of rows that a statement has written, from its command tag."""
    return int(tag.rsplit(" ", 1)[-1])


def _is_from_driver(error: BaseException) -> bool:
    # The block may do more than query the database: a missing file, or a deadline of its own, says nothing
    # about the connection.
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__", "").startswith("asyncpg.") for frame, _ in frames)


async def _roll_back(transaction: Transaction, connection: Connection, because: BaseException) -> None:
    """Roll back, or abort the connection, which has the same effect at once."""
    try:
        async with asyncio.timeout(_CLEAN_UP_TIMEOUT_S):
            await transaction.__aexit__(type(because), because, because.__traceback__)
    except (*AWAY, asyncpg.PostgresError) as error:
        log.debug("connection cut instead of rolled back", reason=redaction.safe_message(error))
        _cut(connection)


def _cut(connection: Connection) -> None:
    # A broken connection has left the pool already, and raises this.
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()
