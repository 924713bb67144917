"""Templates of owners: stored in versions, shown, previewed and deleted."""

from __future__ import annotations

from chassis.broker.answering import Answer
from chassis.deadlines import Deadline
from chassis.errors import Conflict, InvalidInput, NotFound
from chassis.paging import page_of
from chassis.postgres import Postgres
from contracts.message import FieldError, Request
from contracts.templates import (
    DeleteTemplate,
    GetTemplate,
    ListTemplates,
    ListTemplateVersions,
    PreviewTemplate,
    RenderedTemplate,
    SaveTemplate,
    Template,
    TemplateDeleted,
    Templates,
    TemplateVersions,
)
from emailer.errors import TemplateChanged, TemplateFailed, TooManyTemplates
from emailer.templates import repository
from emailer.templates.rendering import TemplateRenderer
from emailer.templates.repository import Stored

# Versions of one template, and of all templates of an owner, including deleted ones that mails still need.
MOST_VERSIONS = 1_000
MOST_VERSIONS_OF_OWNER = 5_000
# Of a preview, as JSON: it travels in one message.
MOST_SHOWN_BYTES = 1_000_000


class TemplateAnswers:
    """Answers requests about templates."""

    def __init__(self, postgres: Postgres, renderer: TemplateRenderer, *, most_of_owner: int) -> None:
        self._postgres = postgres
        self._renderer = renderer
        self._most = most_of_owner

    def table(self) -> dict[type[Request], Answer]:
        """Return the handler of each request."""
        return {
            SaveTemplate: self.save,
            GetTemplate: self.get,
            ListTemplates: self.list,
            ListTemplateVersions: self.versions,
            DeleteTemplate: self.delete,
            PreviewTemplate: self.preview,
        }

    async def save(self, request: SaveTemplate, deadline: Deadline) -> Template:
        """Store a template, or its next version, after checking that each of its parts is valid."""
        owner_id, name, key = request.owner_id, request.name, request.request_key
        if key is not None:
            async with self._postgres.connection() as connection:
                earlier = await repository.find_by_key(connection, owner_id, key)
            if earlier is not None:
                return earlier
        try:
            await self._renderer.check(request.source, owner_id=owner_id, until=deadline)
        except TemplateFailed as error:
            raise _invalid(error, "") from None
        async with self._postgres.transaction() as connection:
            # For two new templates of one name, or two at the limit, there is no row that could be locked.
            await repository.take_turn(connection, owner_id)
            locked = await repository.lock(connection, owner_id, name)
            is_there = locked is not None and not locked.is_deleted
            if request.expected is None:
                if is_there:
                    raise Conflict(f"The template {name} already exists; change it with PUT.")
            elif locked is None or not is_there:
                raise _missing(name)
            else:
                _require_expected(name, locked.newest, request.expected)
            if locked is not None and locked.newest >= MOST_VERSIONS:
                raise TooManyTemplates(
                    f"Template {name} has had {MOST_VERSIONS} versions; store it under another name."
                )
            stored = await repository.count(connection, owner_id)
            self._require_room(stored, is_new=locked is None, is_usable=is_there)
            return await repository.put(connection, owner_id, name, request.source, request_key=key)

    async def get(self, request: GetTemplate, _: Deadline) -> Template:
        """Return a version of a template."""
        async with self._postgres.connection() as connection:
            found = await repository.find(connection, request.owner_id, request.name, request.version)
        if found is None:
            raise _missing(request.name, request.version)
        return found

    async def list(self, request: ListTemplates, _: Deadline) -> Templates:
        """Return a page of templates by name."""
        async with self._postgres.connection() as connection:
            found = await repository.page(
                connection, request.owner_id, after=request.after, limit=request.limit + 1
            )
        page, following = page_of(found, request.limit, lambda line: line.name)
        return Templates(data=page, next_cursor=following)

    async def versions(self, request: ListTemplateVersions, deadline: Deadline) -> TemplateVersions:
        """Return a page of the versions of a template, newest first."""
        async with self._postgres.connection() as connection:
            found = await repository.versions(
                connection, request.owner_id, request.name, before=request.before, limit=request.limit + 1
            )
        if not found:
            await self.get(GetTemplate(owner_id=request.owner_id, name=request.name), deadline)
        page, following = page_of(found, request.limit, lambda line: line.version)
        return TemplateVersions(data=page, next_cursor=following)

    async def delete(self, request: DeleteTemplate, _: Deadline) -> TemplateDeleted:
        """Delete a template; mails that were accepted before are still rendered from it."""
        async with self._postgres.transaction() as connection:
            locked = await repository.lock(connection, request.owner_id, request.name)
            if locked is None or locked.is_deleted:
                raise _missing(request.name)
            _require_expected(request.name, locked.newest, request.expected)
            await repository.delete(connection, request.owner_id, request.name)
        return TemplateDeleted(newest=locked.newest)

    async def preview(self, request: PreviewTemplate, deadline: Deadline) -> RenderedTemplate:
        """Return the content that a mail with this template would have."""
        source, place = request.source, "/source"
        if source is None:
            wanted = GetTemplate(owner_id=request.owner_id, name=request.name or "", version=request.version)
            source, place = (await self.get(wanted, deadline)).source, ""
        try:
            found = await self._renderer.preview(
                source, request.data, owner_id=request.owner_id, until=deadline
            )
        except TemplateFailed as error:
            raise _invalid(error, place) from None
        if len(found.model_dump_json().encode()) > MOST_SHOWN_BYTES:
            raise InvalidInput(
                f"The rendered mail has more than {MOST_SHOWN_BYTES} bytes as JSON, too many for a preview."
            )
        return found

    def _require_room(self, stored: Stored, *, is_new: bool, is_usable: bool) -> None:
        """Raise `TooManyTemplates` when the owner may not store another version, of a new name or not."""
        if not is_usable and stored.usable >= self._most:
            raise TooManyTemplates(f"You have {self._most} templates; delete one first.")
        # There may be as many deleted ones.
        if is_new and stored.stored >= 2 * self._most:
            raise TooManyTemplates(
                f"{stored.stored - stored.usable} deleted templates are still stored, for a day or until no "
                "mail needs them; use one of their names, or wait until they are removed."
            )
        if stored.versions >= MOST_VERSIONS_OF_OWNER:
            raise TooManyTemplates(
                f"Your templates have {MOST_VERSIONS_OF_OWNER} versions; delete templates, whose versions "
                "are removed a day later unless mails still need them."
            )


def _invalid(error: TemplateFailed, place: str) -> InvalidInput:
    return InvalidInput(
        "The template cannot be rendered; see errors.",
        errors=[FieldError(pointer=f"{place}/{error.part}" if error.part else place, detail=error.reason)],
    )


def _missing(name: str, version: int | None = None) -> NotFound:
    return NotFound(f"There is no template {name}" + (f" with version {version}." if version else "."))


def _require_expected(name: str, newest: int, expected: list[int]) -> None:
    if expected and newest not in expected:
        raise TemplateChanged(
            f"The newest version of template {name} is {newest}; read it again and retry the change."
        )
