"""Sender domains and their keys in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from pydantic_core import to_json

from chassis import outbox, queries
from chassis.broker import envelope
from chassis.postgres import Connection, Row
from contracts.domains import CreateDomain, DomainChanged, ListDomains
from emailer.domains import progress
from emailer.domains.keys import NewSigningKey
from emailer.domains.stored import Finding, StoredDomain, StoredKey

_SQL = queries.of("emailer")

_FINDINGS = TypeAdapter(dict[str, Finding])


async def lock_owner(connection: Connection, owner_id: str) -> None:
    """Lock the owner, so that no other transaction creates domains for it."""
    await connection.execute(_SQL["lock_domain_owner"], owner_id)


async def find_of_request(connection: Connection, owner_id: str, request_key: str) -> StoredDomain | None:
    """Return the domain that a request with the same key has created."""
    return await _one(
        connection, await connection.fetchrow(_SQL["find_domain_of_request"], owner_id, request_key)
    )


async def find_named(connection: Connection, owner_id: str, name: str) -> StoredDomain | None:
    """Return the owner's domain of this name."""
    return await _one(connection, await connection.fetchrow(_SQL["find_domain_of_name"], owner_id, name))


async def count_of_owner(connection: Connection, owner_id: str) -> int:
    """Return the number of the owner's domains."""
    return int(await connection.fetchval(_SQL["count_domains_of_owner"], owner_id))


async def insert(
    connection: Connection,
    wanted: CreateDomain,
    *,
    token: str,
    return_path_host: str,
    at: datetime,
    check_at: datetime,
    keys: Sequence[NewSigningKey],
) -> StoredDomain:
    """Store a domain with its keys; the caller has locked the owner, and checked that it is new."""
    row = await connection.fetchrow(
        _SQL["insert_domain"],
        wanted.domain_id,
        wanted.owner_id,
        wanted.name,
        token,
        return_path_host,
        wanted.request_key,
        at,
        check_at,
    )
    await insert_keys(connection, wanted.domain_id, keys, at=at)
    return (await _all(connection, [row] if row else []))[0]


async def insert_keys(
    connection: Connection, domain_id: UUID, keys: Sequence[NewSigningKey], *, at: datetime
) -> None:
    """Store new keys of a domain."""
    await connection.execute(
        _SQL["insert_domain_keys"],
        domain_id,
        [key.selector for key in keys],
        [key.algorithm for key in keys],
        [key.sealed for key in keys],
        [key.public_record for key in keys],
        at,
    )


async def find(connection: Connection, domain_id: UUID, owner_id: str) -> StoredDomain | None:
    """Return a domain of the owner."""
    return await _one(connection, await connection.fetchrow(_SQL["find_domain"], domain_id, owner_id))


async def lock(connection: Connection, domain_id: UUID) -> StoredDomain | None:
    """Return a domain, locked until the transaction ends."""
    return await _one(connection, await connection.fetchrow(_SQL["lock_domain"], domain_id))


async def page(connection: Connection, wanted: ListDomains, *, limit: int) -> list[StoredDomain]:
    """Return domains of an owner, newest first."""
    rows = await connection.fetch(
        _SQL["list_domains"],
        wanted.owner_id,
        wanted.before,
        wanted.name,
        wanted.status or None,
        wanted.created_after,
        wanted.created_before,
        limit,
    )
    return await _all(connection, rows)


async def take_due(connection: Connection, *, most: int, lease_s: float) -> list[StoredDomain]:
    """Return domains due for a check; no other process takes them for `lease_s` seconds."""
    return await _all(connection, await connection.fetch(_SQL["take_due_domains"], most, lease_s))


async def save(connection: Connection, domain: StoredDomain) -> None:
    """Store the changeable columns of a domain and of its keys."""
    await connection.execute(
        _SQL["save_domain"],
        domain.id,
        domain.status,
        domain.version,
        domain.verified_at,
        domain.checked_at,
        domain.missing_since,
        domain.check_at,
        to_json({name: asdict(finding) for name, finding in domain.findings.items()}).decode(),
        progress.lost_records(domain),
        domain.rotation_key,
    )
    keys = domain.keys
    selectors = [key.selector for key in keys]
    await connection.execute(_SQL["remove_domain_keys"], domain.id, selectors)
    await connection.execute(
        _SQL["change_domain_keys"],
        domain.id,
        selectors,
        [key.state for key in keys],
        [key.active_at for key in keys],
        [key.retire_at for key in keys],
    )


async def delete(connection: Connection, domain_id: UUID) -> None:
    """Remove a domain with its keys."""
    await connection.execute(_SQL["delete_domain"], domain_id)


async def announce(connection: Connection, domain: StoredDomain, *, is_verified: bool) -> None:
    """Announce in the outbox whether the owner may now send from `domain`; the caller wakes the outbox."""
    event = DomainChanged(
        domain_id=domain.id,
        owner_id=domain.owner_id,
        name=domain.name,
        is_verified=is_verified,
        version=domain.version,
    )
    await outbox.add(connection, [envelope.event(event, tenant=domain.owner_id)])


async def measure(connection: Connection) -> tuple[dict[str, int], float]:
    """Return the number of domains by state, and for how many seconds the next check has been overdue."""
    rows = await connection.fetch(_SQL["count_domains"])
    late_s: float = await connection.fetchval(_SQL["oldest_domain_check"])
    return {row["state"]: row["count"] for row in rows}, max(0.0, late_s)


async def find_senders(
    connection: Connection, wanted: Collection[tuple[str, str]], *, of_anybody: Collection[str]
) -> list[Row]:
    """Return those of `wanted` (owner, domain) that are verified, with a row for each encrypted key.

    Domains in `of_anybody` are returned whoever owns them, the oldest first.
    """
    owners = [owner_id for owner_id, _ in wanted]
    names = [name for _, name in wanted]
    rows: list[Row] = await connection.fetch(_SQL["find_senders"], owners, names, list(of_anybody))
    return rows


async def sealed_keys(connection: Connection, *, after: tuple[UUID, str], limit: int) -> list[Row]:
    """Return a page of the encrypted keys of all domains."""
    rows: list[Row] = await connection.fetch(_SQL["list_sealed_keys"], *after, limit)
    return rows


async def change_sealed(connection: Connection, key: tuple[UUID, str], sealed: bytes) -> None:
    """Store a re-encrypted key."""
    await connection.execute(_SQL["change_sealed_key"], *key, sealed)


async def _one(connection: Connection, row: Row | None) -> StoredDomain | None:
    return None if row is None else (await _all(connection, [row]))[0]


async def _all(connection: Connection, rows: Iterable[Row]) -> list[StoredDomain]:
    found = list(rows)
    keys: dict[UUID, list[StoredKey]] = {}
    for row in await connection.fetch(_SQL["list_domain_keys"], [row["id"] for row in found]):
        fields: dict[str, Any] = dict(row)
        keys.setdefault(fields.pop("domain_id"), []).append(StoredKey(**fields))
    return [_domain(row, keys.get(row["id"], [])) for row in found]


def _domain(row: Row, keys: Sequence[StoredKey]) -> StoredDomain:
    return StoredDomain(
        id=row["id"],
        owner_id=row["owner_id"],
        name=row["name"],
        token=row["token"],
        return_path_host=row["return_path_host"],
        status=row["status"],
        version=row["version"],
        created_at=row["created_at"],
        verified_at=row["verified_at"],
        checked_at=row["checked_at"],
        missing_since=row["missing_since"],
        check_at=row["check_at"],
        rotation_key=row["rotation_key"],
        findings=_FINDINGS.validate_json(row["findings"]),
        keys=tuple(keys),
    )
