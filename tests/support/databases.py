"""Databases for tests: empty ones, and copies of one that a package has migrated."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import uuid
from collections.abc import Awaitable, Callable
from functools import cache
from urllib.parse import urlsplit

import asyncpg
from hypothesis import HealthCheck, settings

from chassis import migrations
from chassis.postgres import Connection

FreshDatabase = Callable[..., Awaitable[str]]
# The tables that have pages: those that were never written to, or have been truncated since, have none.
_FILLED = """
    SELECT relname, pg_table_size(oid) AS bytes FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'migrations'
      AND pg_relation_size(oid) > 0
"""
_MOST_DELETED_BYTES = 512 << 10

# How long an example takes says something about this machine, nothing about the product.
settings.register_profile(
    "untimed", parent=settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


settings.load_profile("untimed")


class Databases:
    """The databases of the tests on one server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._migrated: set[str] = set()
        # A template is made once, and nobody may be connected to it while it is copied.
        self._turn = asyncio.Lock()

    async def create(self, package: str = "") -> str:
        """Return the address of a new database: an empty one, or one that `package` has migrated."""
        name = f"test_{uuid.uuid4().hex}"
        async with self._turn:
            if package and package not in self._migrated:
                await self._migrate(package)
            await self._copy(_template(package) if package else "template1", name)
        return self._address(name)

    async def drop(self, dsn: str) -> None:
        """Drop a database, whoever is connected to it."""
        await self._ask(f"DROP DATABASE {dsn.rpartition('/')[2]} WITH (FORCE)")

    async def _migrate(self, package: str) -> None:
        name = _template(package)
        await self._copy("template1", name)
        connection = await asyncpg.connect(self._address(name))
        try:
            await migrations.migrate(connection, package)
        finally:
            await connection.close()
        await self._ask(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        self._migrated.add(package)

    async def _copy(self, template: str, name: str) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            # By default every page of the template is written to the log, too: that takes four times as long.
            strategy = "STRATEGY file_copy" if connection.get_server_version().major >= 15 else ""
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} {strategy}")
        finally:
            await connection.close()

    async def _ask(self, statement: str) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _address(self, name: str) -> str:
        return f"{self._url.rpartition('/')[0]}/{name}"


async def hasten_logins(url: str) -> None:
    """Let the role in `url` log in with one round of hashing.

    By default there are 4,096, which take half of the time of a new connection. Tests make thousands, with a
    password that nobody else can try.
    """
    address = urlsplit(url)
    salt, password = os.urandom(16), (address.password or "").encode()
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, iterations=1)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    connection = await asyncpg.connect(url)
    try:
        verifier = "SCRAM-SHA-256$1:{}${}:{}".format(*encoded)
        await connection.execute(f"ALTER ROLE {address.username} PASSWORD '{verifier}'")
    finally:
        await connection.close()


async def empty(connection: Connection) -> None:
    """Remove all rows, as the superuser.

    Truncating gives each table and index new files, and makes every connection read their descriptions anew:
    for a handful of rows that costs a hundred times as much as to delete them.
    """
    found = await connection.fetch(_FILLED)
    if not found:
        return
    names = [f'"{row["relname"]}"' for row in found]
    if max(row["bytes"] for row in found) > _MOST_DELETED_BYTES:
        await connection.execute(f"TRUNCATE {', '.join(names)} CASCADE")
        return
    async with connection.transaction():
        # Neither triggers nor the order of foreign keys: everything goes.
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("; ".join(f"DELETE FROM {name}" for name in names))


@cache
def on(url: str) -> Databases:
    """Return the databases of the server at `url`."""
    return Databases(url)


def _template(package: str) -> str:
    return f"migrated_{package.replace('.', '_')}"
