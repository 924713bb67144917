"""Templates in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

from chassis import queries
from chassis.postgres import Connection, Row
from contracts.templates import RenderedTemplate, Template, TemplateLine, TemplateSource
from emailer.templates.wanted import Versions, Wanted

_SQL = queries.of("emailer")


class Locked(NamedTuple):
    """A template, locked until the transaction ends."""

    newest: int
    is_deleted: bool


class Stored(NamedTuple):
    """The numbers of an owner's usable templates, of all including deleted ones, and of their versions."""

    usable: int
    stored: int
    versions: int


async def take_turn(connection: Connection, owner_id: str) -> None:
    """Lock the templates of the owner until the transaction ends."""
    await connection.execute(_SQL["take_turn_of_templates"], owner_id)


async def lock(connection: Connection, owner_id: str, name: str) -> Locked | None:
    """Lock a template and return it; return None when there never was one."""
    row = await connection.fetchrow(_SQL["lock_template"], owner_id, name)
    return Locked(row["newest"], row["is_deleted"]) if row else None


async def count(connection: Connection, owner_id: str) -> Stored:
    """Return the numbers of an owner's stored templates and versions."""
    row = await connection.fetchrow(_SQL["count_templates"], owner_id)
    assert row is not None
    return Stored(**dict(row))


async def put(
    connection: Connection, owner_id: str, name: str, source: TemplateSource, *, request_key: str | None
) -> Template:
    """Store the next version of a template."""
    version = await connection.fetchval(_SQL["put_template"], owner_id, name)
    if request_key is not None:
        await connection.execute(_SQL["forget_old_template_key"], owner_id, request_key)
    created_at = await connection.fetchval(
        _SQL["insert_template_version"], owner_id, name, version, source.model_dump_json(), request_key
    )
    return Template(name=name, version=version, newest=version, source=source, created_at=created_at)


async def find_by_key(connection: Connection, owner_id: str, request_key: str) -> Template | None:
    """Return the version that a request with this key stored within the last 24 hours."""
    row = await connection.fetchrow(_SQL["find_template_by_key"], owner_id, request_key)
    return _template(row) if row else None


async def find(connection: Connection, owner_id: str, name: str, version: int | None) -> Template | None:
    """Return a version of a template, by default the newest."""
    row = await connection.fetchrow(_SQL["find_template"], owner_id, name, version)
    return _template(row) if row else None


async def page(connection: Connection, owner_id: str, *, after: str, limit: int) -> list[TemplateLine]:
    """Return a page of an owner's templates by name, those that follow `after`."""
    rows = await connection.fetch(_SQL["list_templates"], owner_id, after, limit)
    return [TemplateLine.model_validate(dict(row)) for row in rows]


async def versions(
    connection: Connection, owner_id: str, name: str, *, before: int | None, limit: int
) -> list[Template]:
    """Return a page of the versions of a template, newest first."""
    rows = await connection.fetch(_SQL["list_template_versions"], owner_id, name, before, limit)
    return [_template(row) for row in rows]


async def delete(connection: Connection, owner_id: str, name: str) -> None:
    """Delete a template; mails that name one of its versions can still be rendered."""
    await connection.execute(_SQL["delete_template"], owner_id, name)


async def resolve(connection: Connection, wanted: Collection[Wanted]) -> Versions:
    """Return the version that each of `wanted` resolves to."""
    if not wanted:
        return {}
    rows = await connection.fetch(
        _SQL["resolve_templates"],
        [each.owner_id for each in wanted],
        [each.name for each in wanted],
        [each.version for each in wanted],
    )
    return {Wanted(row["owner_id"], row["name"], row["asked_version"]): row["version"] for row in rows}


async def read_source(
    connection: Connection, owner_id: str, name: str, version: int
) -> TemplateSource | None:
    """Return the source of a version, even if its template was deleted."""
    source = await connection.fetchval(_SQL["read_template_source"], owner_id, name, version)
    return TemplateSource.model_validate_json(source) if source is not None else None


async def keep_rendered(connection: Connection, email_id: UUID, rendered: RenderedTemplate) -> None:
    """Store the rendered content of a mail, in place of its template's data."""
    await connection.execute(_SQL["keep_rendered"], email_id, rendered.subject, rendered.text, rendered.html)


def _template(row: Row) -> Template:
    return Template(
        name=row["name"],
        version=row["version"],
        newest=row["newest"],
        source=TemplateSource.model_validate_json(row["source"]),
        created_at=row["created_at"],
    )
