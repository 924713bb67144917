"""Webhooks over HTTP: made, changed, rotated, tested and deleted; each change is audited."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from chassis.broker.envelope import new_id
from chassis.egress.destinations import Destination, DestinationRefused, InternalTargets
from chassis.errors import Conflict, NotFound
from chassis.paging import page_of
from chassis.postgres import Connection, Postgres, Row
from contracts.scopes import Scope
from gateway.audit.inputs import Action
from gateway.audit.service import AuditTrail
from gateway.http.calls import Call
from gateway.http.principal import Principal
from gateway.http.problems import invalid
from gateway.http.replies import HttpReply, document, entity_tag
from gateway.webhooks import events, repository, withdrawing
from gateway.webhooks.inputs import (
    SecretRotation,
    WebhookChange,
    WebhookInput,
    WebhookList,
    WebhookSecret,
    WebhooksQuery,
    WebhookView,
)
from gateway.webhooks.secret_safe import SecretSafe, UnreadableSecret, shown

MOST_WEBHOOKS = 20
_BY_OWNER = "Its owner disabled it."


class WebhookService:
    """Keeps the webhooks of each owner. Events need the scope of their objects besides `webhooks:write`."""

    def __init__(
        self, postgres: Postgres, safe: SecretSafe, internal: InternalTargets, audit: AuditTrail
    ) -> None:
        self._postgres = postgres
        self._safe = safe
        self._internal = internal
        self._audit = audit

    async def create(self, call: Call, body: WebhookInput) -> HttpReply:
        """Store a webhook. Raise `Conflict` if its owner has too many, and `InvalidInput` for its URL."""
        caller, connection = call.principal, call.connection
        self._require_allowed(body.url)
        caller.require(*_scopes(body.events))
        await repository.lock_owner(connection, caller.owner_id)
        if await repository.count_of_owner(connection, caller.owner_id) >= MOST_WEBHOOKS:
            raise Conflict(f"You have {MOST_WEBHOOKS} webhooks, which is the limit; delete one of them.")
        made = await repository.insert(connection, new_id(), caller, body, self._safe.new())
        after = _audited({"url": body.url, "events": body.events})
        await self._audit.record(connection, caller, Action.WEBHOOK_CREATED, _target(made["id"]), after=after)
        return _reply(made, location=f"/v1/webhooks/{made['id']}")

    async def list(self, call: Call, query: WebhooksQuery) -> WebhookList:
        """Return a page of the caller's webhooks, newest first."""
        async with self._postgres.connection() as connection:
            found = await repository.page(connection, call.principal.owner_id, query)
        page, following = page_of(found, query.limit, lambda row: row["id"])
        return WebhookList(data=[_view(row) for row in page], next_cursor=following)

    async def get(self, call: Call, webhook_id: UUID) -> HttpReply:
        """Return a webhook of the caller."""
        async with self._postgres.connection() as connection:
            return _reply(await find(connection, call.principal, webhook_id))

    async def secret(self, call: Call, webhook_id: UUID) -> WebhookSecret:
        """Return the secrets with which receivers verify the requests of a webhook."""
        async with self._postgres.connection() as connection:
            row = await find(connection, call.principal, webhook_id)
        try:
            secret = self._safe.open(row["secret"], row["sealed_with"])
            is_valid = row["previous_until"] is not None and row["previous_until"] > datetime.now(UTC)
            previous = self._safe.open(row["previous_secret"], row["sealed_with"]) if is_valid else None
        except UnreadableSecret as error:
            raise Conflict(f"The secret cannot be decrypted: {error}. Rotate it.") from error
        return WebhookSecret(
            secret=shown(secret),
            previous_secret=None if previous is None else shown(previous),
            previous_until=None if previous is None else row["previous_until"],
        )

    async def change(self, call: Call, webhook_id: UUID, body: WebhookChange) -> HttpReply:
        """Change a webhook at the version that the caller has read.

        From then on the webhook gets what the caller's credential may read.
        """
        caller = call.principal
        if body.status == "active":
            # Nothing is sent that waited when it was disabled.
            await withdrawing.withdraw_all(self._postgres, webhook_id)
        async with self._postgres.transaction() as connection:
            row = await _locked(connection, call, webhook_id)
            wanted = {
                name: row[name] if (value := getattr(body, name)) is None else value
                for name in ("url", "events", "description", "status")
            }
            if wanted["url"] != row["url"]:
                self._require_allowed(wanted["url"])
            caller.require(*_scopes(wanted["events"]))
            reason = row["disabled_reason"] or _BY_OWNER
            is_disabled = wanted["status"] == "disabled"
            changed = await repository.change(
                connection, webhook_id, caller, **wanted, disabled_reason=reason if is_disabled else None
            )
            is_complete = True
            if "disabled" in (row["status"], wanted["status"]):
                withdrawn = await repository.withdraw(connection, webhook_id, most=withdrawing.STEP)
                is_complete = withdrawn < withdrawing.STEP
            if not (is_complete or is_disabled):
                raise Conflict("What waited for the webhook is still being withdrawn; try again.")
            before = {name: row[name] for name in wanted if row[name] != wanted[name]}
            await self._audit.record(
                connection,
                caller,
                Action.WEBHOOK_CHANGED,
                _target(webhook_id),
                before=_audited(before),
                after=_audited({name: wanted[name] for name in before}),
            )
        if not is_complete:
            await withdrawing.withdraw_all(self._postgres, webhook_id)
        return _reply(changed)

    async def rotate(self, call: Call, webhook_id: UUID, body: SecretRotation) -> HttpReply:
        """Give a webhook a new secret; the previous one signs, too, for `overlap_s` more seconds."""
        connection = call.connection
        await _locked(connection, call, webhook_id)
        until = datetime.now(UTC) + timedelta(seconds=body.overlap_s) if body.overlap_s else None
        rotated = await repository.rotate(connection, webhook_id, self._safe.new(), previous_until=until)
        await self._audit.record(
            connection,
            call.principal,
            Action.WEBHOOK_ROTATED,
            _target(webhook_id),
            after={"overlap_s": body.overlap_s},
        )
        return _reply(rotated)

    async def delete(self, call: Call, webhook_id: UUID) -> None:
        """Delete a webhook: nothing is sent to its URL any more."""
        async with self._postgres.transaction() as connection:
            row = await _locked(connection, call, webhook_id)
            await repository.delete(connection, webhook_id)
            before = _audited({"url": row["url"], "events": row["events"]})
            await self._audit.record(
                connection, call.principal, Action.WEBHOOK_DELETED, _target(webhook_id), before=before
            )

    async def known(self, call: Call, webhook_ids: Collection[UUID]) -> set[UUID]:
        """Return those of these ids that are webhooks of the caller."""
        async with self._postgres.connection() as connection:
            return await repository.known(connection, call.principal.owner_id, webhook_ids)

    def _require_allowed(self, url: str) -> None:
        """Raise `InvalidInput` for a URL that no request may go to; names are looked up when one is sent."""
        try:
            destination = Destination.of(url)
            if destination.address is not None:
                self._internal.require((destination.address,), destination)
        except DestinationRefused as error:
            raise invalid("/url", error.detail) from None


async def find(connection: Connection, caller: Principal, webhook_id: UUID) -> Row:
    """Return a webhook of the caller. Raise `NotFound` if there is none."""
    row = await repository.find(connection, webhook_id, caller.owner_id)
    if row is None:
        raise NotFound(f"There is no webhook {webhook_id}.")
    return row


async def hold(connection: Connection, caller: Principal, webhook_id: UUID) -> Row:
    """Return a webhook of the caller, which nobody changes until the transaction ends."""
    row = await repository.lock(connection, webhook_id, caller.owner_id)
    if row is None:
        raise NotFound(f"There is no webhook {webhook_id}.")
    return row


async def _locked(connection: Connection, call: Call, webhook_id: UUID) -> Row:
    row = await hold(connection, call.principal, webhook_id)
    call.require_revision(row["revision"], etag=_reply(row).etag or "")
    return row


def _scopes(names: Sequence[str]) -> set[Scope]:
    return {events.scope_of(name) for name in names}


def _audited(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values for the audit trail, with only the server of a URL: the rest may hold a token."""
    found = dict(values)
    if "url" in found:
        destination = Destination.of(found["url"])
        found["url"] = f"{destination.scheme}://{destination.authority}/…"
    return found


def _target(webhook_id: UUID) -> str:
    return f"webhook:{webhook_id}"


def _view(row: Row) -> WebhookView:
    found: dict[str, Any] = {name: row[name] for name in WebhookView.model_fields if name in row}
    return WebhookView(**found, previous_secret_until=row["previous_until"])


def _reply(row: Row, *, location: str | None = None) -> HttpReply:
    body = document(_view(row))
    return HttpReply(body, etag=entity_tag(body, row["revision"]), location=location)
