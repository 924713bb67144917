"""API keys: creation, listing, rotation and revocation; each change is audited."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import orjson

from chassis.errors import Conflict, Forbidden, NotFound
from chassis.paging import page_of
from chassis.postgres import Connection, Postgres, Row
from contracts.scopes import FOR_MEMBERS, Scope, allowed
from gateway.audit.inputs import Action
from gateway.audit.service import AuditTrail
from gateway.errors import IdempotencyMismatch
from gateway.http import replies
from gateway.http.calls import Call
from gateway.http.principal import Principal
from gateway.http.problems import invalid
from gateway.http.replies import HttpReply
from gateway.identity import administrators, key_repository, keys, user_repository
from gateway.identity.inputs import (
    EPOCH,
    KeyInput,
    KeyPage,
    KeysQuery,
    KeyView,
    NewKey,
    RotationInput,
)
from gateway.identity.key_repository import known_scopes
from gateway.identity.keyring import KeyRing
from gateway.identity.keys import ApiKey
from gateway.identity.refusals import unknown_key

_MOST_ANCESTORS = 8
MOST_KEYS = 1000
# Of a user, whatever the retention: one could create and revoke them without end.
MOST_ENDED_KEYS = 1000
_SURPLUS_STEP = 100


class KeyService:
    """Creates keys that never outlive or outrank their parent, and protects the last administrator's key."""

    def __init__(
        self,
        postgres: Postgres,
        *,
        audit: AuditTrail,
        keyring: KeyRing,
        pepper: str,
        previous_pepper: str | None = None,
    ) -> None:
        self._postgres = postgres
        self._audit = audit
        self._keyring = keyring
        self._pepper = pepper
        self._peppers = {keys.fingerprint(one): one for one in (pepper, previous_pepper) if one is not None}

    async def page(self, call: Call, query: KeysQuery) -> KeyPage:
        """Return a page of the caller's keys, or of another user's for a caller with `users:read`."""
        user_id = query.user_id or call.principal.user_id
        if user_id != call.principal.user_id:
            call.principal.require(Scope.USERS_READ)
        async with self._postgres.connection() as connection:
            found = await key_repository.page(connection, user_id, query)
        page, following = page_of(
            found,
            query.limit,
            lambda row: f"{(row['created_at'] - EPOCH) // timedelta(microseconds=1)}-{row['id']}",
        )
        return KeyPage(data=list(map(_view, page)), next_cursor=following)

    async def get(self, call: Call, key_id: str) -> HttpReply:
        """Return a key: the caller's, or another user's for a caller with `users:read`."""
        if key_id != call.principal.key_id:
            call.principal.require(Scope.KEYS_READ)
        async with self._postgres.connection() as connection:
            return _reply(await self._find(connection, call.principal, key_id, Scope.USERS_READ))

    async def create(self, call: Call, body: KeyInput) -> HttpReply:
        """Create a child of the caller's key: within its scopes, and with no later expiry."""
        caller, connection = call.principal, call.connection
        if not caller.has_key:
            # A key ends with its parent, and a token expires within minutes.
            raise Forbidden("Only an API key can create API keys; ask an administrator for your first one.")
        caller.require(*body.scopes)
        if caller.expires_at and body.expires_at and body.expires_at > caller.expires_at:
            raise invalid("/expires_at", f"Must not be after the end of your own key, {caller.expires_at}.")
        user_id = body.user_id or caller.user_id
        if user_id != caller.user_id:
            caller.require(Scope.USERS_WRITE)
        key = ApiKey(key_id := keys.new_id(), self._secret(call, key_id))
        made = await self.make_child(
            connection,
            caller,
            key,
            user_id=user_id,
            name=body.name,
            scopes=body.scopes,
            expires_at=body.expires_at or caller.expires_at,
        )
        return self._show(key, made, caller, location=f"/v1/api-keys/{key.id}")

    async def make_child(
        self,
        connection: Connection,
        parent: Principal,
        key: ApiKey,
        *,
        user_id: int,
        name: str,
        scopes: Sequence[Scope],
        expires_at: datetime | None,
    ) -> KeyView:
        """Store `key` as a child of the key of `parent`, and audit it; the caller has checked the rights.

        Raise `Conflict` if its user has too many keys or it would have too many ancestors.
        """
        await self._require_owner(connection, parent, user_id, scopes)
        about = await key_repository.get(connection, parent.key_id)
        if about is None or about["status"] != "active":
            raise unknown_key()
        if about["ancestors"] >= _MOST_ANCESTORS:
            raise Conflict(
                f"The key is {_MOST_ANCESTORS} generations away from the first one: create keys with one of "
                "its ancestors."
            )
        await key_repository.insert(
            connection,
            key.id,
            user_id=user_id,
            name=name,
            digest=keys.digest(self._pepper, key),
            scopes=scopes,
            expires_at=expires_at,
            parent_id=parent.key_id,
        )
        made = _view(await self._find(connection, parent, key.id, Scope.USERS_WRITE))
        after = made.model_dump(mode="json", include={"user_id", "name", "scopes", "expires_at", "parent_id"})
        await self._audit.record(connection, parent, Action.KEY_CREATED, f"api-key:{key.id}", after=after)
        return made

    async def rotate(self, call: Call, key_id: str, body: RotationInput) -> HttpReply:
        """Give a key a new secret; the previous one works for `overlap_s` more seconds.

        A key may rotate itself and the keys that it created: rotating another key would grant its rights.
        """
        caller, connection = call.principal, call.connection
        is_own = key_id == caller.key_id
        if not is_own:
            # First: without it, a key does not learn which others there are.
            caller.require(Scope.KEYS_WRITE)
        row = await self._find_locked(connection, caller, key_id)
        if not is_own and not await key_repository.has_ancestor(connection, key_id, caller.key_id):
            raise Forbidden("A key can be rotated only by itself or by one of its ancestors.")
        if caller.expires_at and (row["expires_at"] is None or row["expires_at"] > caller.expires_at):
            # Only a previous secret expires before its own key, and before the keys created with it.
            raise Forbidden("The secret that you use was rotated: use the new one.")
        call.require_revision(_revision(row), etag=_reply(row).etag or "")
        if row["status"] != "active":
            raise Conflict(f"The key is {row['status']}: it cannot be rotated. Create another one.")
        now = datetime.now(UTC)
        key = ApiKey(key_id, self._secret(call, key_id, now.isoformat()))
        await key_repository.rotate(
            connection,
            key_id,
            digest=keys.digest(self._pepper, key),
            rotated_at=now,
            previous_until=now + timedelta(seconds=body.overlap_s) if body.overlap_s else None,
        )
        rotated = _view(await self._find(connection, caller, key_id, Scope.USERS_WRITE))
        after = rotated.model_dump(mode="json", include={"rotated_at", "previous_until"})
        await self._audit.record(connection, caller, Action.KEY_ROTATED, f"api-key:{key_id}", after=after)
        call.after_commit.append(partial(self._keyring.forget, _user_concerned(row)))
        return self._show(key, rotated, caller)

    async def revoke(self, call: Call, key_id: str) -> None:
        """Revoke a key and all keys that it created.

        A key may always revoke itself, unless the installation would be left without an administrator.
        """
        caller = call.principal
        if key_id != caller.key_id:
            caller.require(Scope.KEYS_WRITE)
        async with self._postgres.transaction() as connection:
            row = await self._find_locked(connection, caller, key_id)
            if row["user_id"] != caller.user_id and row["role"] == "admin":
                caller.require(Scope.ADMIN)
            call.require_revision(_revision(row), etag=_reply(row).etag or "")
            async with administrators.kept(connection):
                is_revoked = await key_repository.revoke(connection, key_id)
            if is_revoked:
                await self._audit.record(
                    connection,
                    caller,
                    Action.KEY_REVOKED,
                    f"api-key:{key_id}",
                    before={"user_id": row["user_id"], "name": row["name"], "status": row["status"]},
                    after={"status": "revoked"},
                )
        await self._keyring.forget(_user_concerned(row))

    def show_again(self, call: Call, reply: HttpReply) -> HttpReply:
        """Return the answer of `create` or `rotate` again, with the secret derived anew instead of stored.

        Only the key that made the first request gets it: another key of the same user may have fewer rights.
        Raise `Conflict` if the pepper of the derivation is no longer configured.
        """
        assert isinstance(reply.body, bytes)
        recorded = orjson.loads(reply.body)
        if recorded["by"] != call.principal.key_id:
            raise IdempotencyMismatch("This Idempotency-Key was used within 24 hours with another API key.")
        # Answers recorded by the previous release do not name their pepper.
        pepper = self._peppers.get(recorded.get("pepper", keys.fingerprint(self._pepper)))
        if pepper is None:
            raise Conflict(
                "The key was created but cannot be shown again: its pepper is no longer configured. "
                "Rotate the key, or revoke it and create another one."
            )
        view = KeyView.model_validate(recorded["key"])
        rotation = recorded["key"]["rotated_at"]
        moments = () if rotation is None else (datetime.fromisoformat(rotation).isoformat(),)
        key = ApiKey(view.id, self._secret(call, view.id, *moments, pepper=pepper))
        body = replies.document(NewKey(**view.model_dump(), key=str(key)))
        return HttpReply(body, reply.status, location=reply.location, is_repeat=True)

    def _secret(self, call: Call, key_id: str, *context: str, pepper: str | None = None) -> str:
        """Return a secret: random, or derived if the answer may have to be repeated."""
        if call.idempotency_key is None:
            return keys.new_secret()
        caller = call.principal
        return keys.derive_secret(
            *(pepper or self._pepper, key_id, caller.owner_id, caller.key_id, call.idempotency_key.key),
            *context,
        )

    def _show(
        self, key: ApiKey, view: KeyView, caller: Principal, *, location: str | None = None
    ) -> HttpReply:
        """Return the only answer that contains the text of a key; the recorded copy does not."""
        body = replies.document(NewKey(**view.model_dump(), key=str(key)))
        recorded = {"by": caller.key_id, "key": view, "pepper": keys.fingerprint(self._pepper)}
        return HttpReply(body, recorded=replies.document(recorded), location=location)

    async def _find_locked(self, connection: Connection, caller: Principal, key_id: str) -> Row:
        """Return a key that the caller may change, locked until the transaction ends."""
        if keys.is_id(key_id):
            await key_repository.lock(connection, key_id)
        return await self._find(connection, caller, key_id, Scope.USERS_WRITE)

    async def _find(self, connection: Connection, caller: Principal, key_id: str, foreign: Scope) -> Row:
        """Return a key of the caller, or of any user for a caller with the scope `foreign`."""
        row = await key_repository.get(connection, key_id) if keys.is_id(key_id) else None
        if row is None or (row["user_id"] != caller.user_id and not caller.may(foreign)):
            # The message does not contain the id, which may be a whole key.
            raise NotFound("There is no API key with this id.")
        return row

    async def _require_owner(
        self, connection: Connection, parent: Principal, user_id: int, scopes: Sequence[Scope]
    ) -> None:
        """Raise an error if the user does not exist or may not have a key with these scopes.

        A key for another administrator, who may have more rights, is made by an administrator only. Of the
        user's keys that have ended, the oldest of too many are removed.
        """
        # Locked, so that requests at once cannot make more keys than there may be.
        owner = await user_repository.lock(connection, user_id)
        if owner is None:
            raise invalid("/user_id", f"There is no user {user_id}.")
        if owner["role"] == "admin" and user_id != parent.user_id:
            parent.require(Scope.ADMIN)
        if owner["status"] != "active":
            raise invalid("/user_id", f"The user {user_id} is disabled.")
        beyond = [scope for scope in scopes if scope not in FOR_MEMBERS]
        if beyond and owner["role"] != "admin":
            raise invalid(
                "/scopes",
                f"The user {user_id} is not an administrator, so the key cannot have {', '.join(beyond)}.",
            )
        if await key_repository.count_live(connection, user_id) >= MOST_KEYS:
            raise Conflict(f"The user {user_id} has {MOST_KEYS} keys; revoke some that are not needed.")
        # Here, and not in the background, so that no rate of requests gets ahead of it.
        await key_repository.remove_surplus(connection, user_id, keep=MOST_ENDED_KEYS, most=_SURPLUS_STEP)


def _view(row: Row) -> KeyView:
    scopes = known_scopes(row["scopes"])
    usable = scopes if row["status"] == "active" else frozenset()
    effective = allowed(usable, is_administrator=row["role"] == "admin")
    found: dict[str, Any] = {name: row[name] for name in KeyView.model_fields if name in row}
    return KeyView.model_validate({**found, "scopes": sorted(scopes), "effective_scopes": sorted(effective)})


def _user_concerned(row: Row) -> int | None:
    """Return the user whose keys a change of a key concerns; None when they may be of several users.

    Only administrators create keys of others, which end with their own.
    """
    return None if row["role"] == "admin" else int(row["user_id"])


def _revision(row: Row) -> int:
    """Return the time of the last change of a key by a request, in microseconds; its use is not a change."""
    times = [row[name] for name in ("created_at", "rotated_at", "revoked_at")]
    changed_at: datetime = max(time for time in times if time is not None)
    return (changed_at - EPOCH) // timedelta(microseconds=1)


def _reply(row: Row) -> HttpReply:
    body = replies.document(_view(row))
    return HttpReply(body, etag=replies.entity_tag(body, _revision(row)))
