"""Users, their subjects at token issuers, and administrators: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import asyncpg

from chassis import queries
from chassis.errors import Conflict
from chassis.postgres import Connection, Row
from gateway.identity.inputs import UsersQuery

_SQL = queries.of("gateway")


class AdministratorCounts(NamedTuple):
    """The number of usable keys of administrators, and of those without an expiry."""

    working: int
    lasting: int


async def insert(connection: Connection, *, name: str, email: str, role: str) -> Row:
    """Store a user. Raise `Conflict` if the address is taken."""
    row = await connection.fetchrow(_SQL["insert_user"], name, email, role)
    if row is None:
        raise Conflict(f"A user with the address {email} already exists.")
    return row


async def get(connection: Connection, user_id: int) -> Row | None:
    """Return a user by id."""
    return await connection.fetchrow(_SQL["get_user"], user_id)


async def find_by_address(connection: Connection, email: str) -> Row | None:
    """Return the user with this address, ignoring case."""
    return await connection.fetchrow(_SQL["find_user_by_address"], email)


async def find_by_subject(connection: Connection, issuer: str, subject: str) -> Row | None:
    """Return the user that is linked to a subject of a token issuer."""
    return await connection.fetchrow(_SQL["find_user_of_subject"], issuer, subject)


async def lock_subject(connection: Connection, issuer: str, subject: str) -> None:
    """Lock this subject against other transactions until this one ends."""
    await connection.execute(_SQL["lock_subject"], f"{issuer}\n{subject}")


async def add_subject(connection: Connection, user_id: int, issuer: str, subject: str) -> None:
    """Link a subject of an issuer to a user."""
    await connection.execute(_SQL["insert_subject"], issuer, subject, user_id)


async def lock(connection: Connection, user_id: int) -> Row | None:
    """Return a user by id, locked against other changes until the transaction ends."""
    return await connection.fetchrow(_SQL["lock_user"], user_id)


async def update(connection: Connection, user_id: int, changes: Mapping[str, str]) -> Row:
    """Change the fields in `changes` of a locked user. Raise `Conflict` for a taken address."""
    values = [changes.get(name) for name in ("name", "email", "role", "status")]
    try:
        row = await connection.fetchrow(_SQL["update_user"], user_id, *values)
    except asyncpg.UniqueViolationError:
        raise Conflict(f"A user with the address {changes['email']} already exists.") from None
    assert row is not None, "a locked user cannot be deleted"
    return row


async def page(connection: Connection, query: UsersQuery) -> list[Row]:
    """Return a page of users in the order of their ids, plus one more user if there is one."""
    return await connection.fetch(
        _SQL["list_users"],
        query.cursor or 0,
        query.limit + 1,
        query.role,
        query.status,
        query.created_after,
        query.created_before,
    )


async def ensure_administrator(connection: Connection, email: str) -> int:
    """Make the user with this address an active administrator, and return its id."""
    return int(await connection.fetchval(_SQL["ensure_administrator"], email))


async def lock_administrators(connection: Connection) -> None:
    """Lock the set of administrators against other changes until the transaction ends."""
    await connection.execute(_SQL["lock_administrators"])


async def count_administrators(connection: Connection) -> AdministratorCounts:
    """Count the keys that administer the installation."""
    row = await connection.fetchrow(_SQL["count_administrators"])
    assert row is not None, "a count returns one row"
    return AdministratorCounts(**row)
