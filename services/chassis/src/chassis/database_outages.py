"""The errors by which a database that is away, or does not take writes, makes itself known."""

from __future__ import annotations

import asyncpg

# The errors of a server that is unreachable, starting, stopping or out of connections, or refuses a login, as
# while its password is being changed. A statement's time-out (TimeoutError) is an OSError.
AWAY = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # A connection that has ended can be found in an impossible state.
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.CannotConnectNowError,
    asyncpg.InvalidAuthorizationSpecificationError,
)
# The errors of a single connection that has ended.
ENDED = (
    ConnectionError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
)
# The errors of a server that accepts no writes: a standby after a failover, or one without space left.
UNWRITABLE = (asyncpg.ReadOnlySQLTransactionError, asyncpg.InsufficientResourcesError)
