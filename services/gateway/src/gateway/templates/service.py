"""Templates of mails: requests forwarded to email with their owner."""

from __future__ import annotations

from chassis.broker.rpc import RpcClient
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
    TemplateSource,
    TemplateVersions,
)
from gateway.audit.inputs import Action
from gateway.audit.service import AuditTrail
from gateway.http.calls import Call
from gateway.http.replies import HttpReply, document
from gateway.templates.inputs import (
    Name,
    NewTemplate,
    Preview,
    SourcePreview,
    TemplateQuery,
    TemplatesQuery,
    VersionList,
    VersionsQuery,
    view,
)


class TemplateService:
    """Forwards the caller's requests to email, and writes every change into the audit trail."""

    def __init__(self, rpc: RpcClient, audit: AuditTrail) -> None:
        self._rpc = rpc
        self._audit = audit

    async def create(self, call: Call, body: NewTemplate) -> HttpReply:
        """Store the first version of a template."""
        request = SaveTemplate(
            owner_id=call.principal.owner_id,
            name=body.name,
            request_key=call.request_key,
            source=TemplateSource.model_validate(body.model_dump(exclude={"name"})),
        )
        found = await self._rpc.call(request, Template, call.deadline)
        target, after = f"template:{found.name}", {"version": found.version}
        self._audit.record_with(call, Action.TEMPLATE_CREATED, target, after=after)
        return _reply(found, location=f"/v1/templates/{found.name}")

    async def change(self, call: Call, name: Name, body: TemplateSource) -> HttpReply:
        """Store the next version of a template, if the caller has read its newest version."""
        request = SaveTemplate(
            owner_id=call.principal.owner_id, name=name, expected=_expected(call), source=body
        )
        found = await self._rpc.call(request, Template, call.deadline)
        await self._audit.record_now(
            call,
            Action.TEMPLATE_CHANGED,
            f"template:{name}",
            before={"version": found.version - 1},
            after={"version": found.version},
        )
        return _reply(found)

    async def get(self, call: Call, name: Name, query: TemplateQuery) -> HttpReply:
        """Return a version of a template, or the newest."""
        request = GetTemplate(owner_id=call.principal.owner_id, name=name, version=query.version)
        return _reply(await self._rpc.call(request, Template, call.deadline))

    async def list(self, call: Call, query: TemplatesQuery) -> Templates:
        """Return a page of the caller's templates, by name."""
        request = ListTemplates(owner_id=call.principal.owner_id, after=query.cursor or "", limit=query.limit)
        return await self._rpc.call(request, Templates, call.deadline)

    async def versions(self, call: Call, name: Name, query: VersionsQuery) -> VersionList:
        """Return versions of a template, newest first."""
        request = ListTemplateVersions(
            owner_id=call.principal.owner_id, name=name, before=query.cursor, limit=query.limit
        )
        page = await self._rpc.call(request, TemplateVersions, call.deadline)
        return VersionList(data=[view(each) for each in page.data], next_cursor=page.next_cursor)

    async def delete(self, call: Call, name: Name) -> None:
        """Delete a template; mails already accepted still use it."""
        request = DeleteTemplate(owner_id=call.principal.owner_id, name=name, expected=_expected(call))
        deleted = await self._rpc.call(request, TemplateDeleted, call.deadline)
        before = {"version": deleted.newest}
        await self._audit.record_now(call, Action.TEMPLATE_DELETED, f"template:{name}", before=before)

    async def preview(self, call: Call, name: Name, body: Preview) -> RenderedTemplate:
        """Return the mail that a stored template would make."""
        request = PreviewTemplate(
            owner_id=call.principal.owner_id, name=name, version=body.version, data=body.data
        )
        return await self._rpc.call(request, RenderedTemplate, call.deadline)

    async def preview_source(self, call: Call, body: SourcePreview) -> RenderedTemplate:
        """Return the mail that a template in the request would make."""
        request = PreviewTemplate(owner_id=call.principal.owner_id, source=body.source, data=body.data)
        return await self._rpc.call(request, RenderedTemplate, call.deadline)


def _expected(call: Call) -> list[int]:
    """Return the versions that `If-Match` allows as the newest; an empty list allows any."""
    tags = call.if_match
    if tags is None or tags.star_tag:
        return []
    found = [int(tag) for tag in tags.as_set() if tag.isascii() and tag.isdecimal() and len(tag) < 10]
    # No version has the number 0, so an unknown tag matches none.
    return found or [0]


def _reply(found: Template, *, location: str | None = None) -> HttpReply:
    return HttpReply(document(view(found)), etag=f'"{found.version}"', location=location)
