"""Users: creation, reading and changes; each change is audited."""

from __future__ import annotations

from contextlib import nullcontext

from chassis import outbox
from chassis.broker import envelope
from chassis.broker.envelope import Outgoing
from chassis.errors import NotFound
from chassis.paging import page_of
from chassis.postgres import Postgres, Row
from contracts.batches import LimitOwner
from contracts.scopes import Scope, allowed
from gateway.audit.inputs import Action
from gateway.audit.service import AuditTrail
from gateway.http import replies
from gateway.http.calls import Call
from gateway.http.replies import HttpReply
from gateway.http.strict_json import MOST_ID
from gateway.identity import administrators, user_repository
from gateway.identity.inputs import (
    Me,
    MyKey,
    Myself,
    UserChange,
    UserInput,
    UserPage,
    UsersQuery,
    UserView,
)
from gateway.identity.keyring import KeyRing


class UserService:
    """Reads and changes users in the database, and protects the last administrator."""

    def __init__(
        self,
        postgres: Postgres,
        *,
        audit: AuditTrail,
        keyring: KeyRing,
    ) -> None:
        self._postgres = postgres
        self._audit = audit
        self._keyring = keyring

    async def get(self, call: Call, user_id: int) -> HttpReply:
        """Return a user: the caller, or any user for a caller with `users:read`."""
        is_visible = user_id == call.principal.user_id or call.principal.may(Scope.USERS_READ)
        if not is_visible or user_id > MOST_ID:
            raise _not_found(user_id)
        async with self._postgres.connection() as connection:
            user = await user_repository.get(connection, user_id)
        if user is None:
            raise _not_found(user_id)
        return _reply(user)

    async def me(self, call: Call) -> Me:
        """Return the caller, and the current rights of the caller's key."""
        caller = call.principal
        return Me(
            user=Myself.model_validate({"id": caller.user_id, "name": caller.user_name, "role": caller.role}),
            key=MyKey(
                id=caller.key_id,
                scopes=sorted(caller.granted),
                effective_scopes=sorted(caller.scopes),
                expires_at=caller.expires_at,
            ),
        )

    async def page(self, _: Call, query: UsersQuery) -> UserPage:
        """Return a page of users by id."""
        async with self._postgres.connection() as connection:
            found = await user_repository.page(connection, query)
        page, following = page_of(found, query.limit, lambda row: str(row["id"]))
        return UserPage(data=[UserView.model_validate(dict(row)) for row in page], next_cursor=following)

    async def create(self, call: Call, body: UserInput) -> HttpReply:
        """Store a new user. Raise `Conflict` if the address is taken."""
        if body.role == "admin":
            call.principal.require(Scope.ADMIN)
        user = await user_repository.insert(call.connection, name=body.name, email=body.email, role=body.role)
        await self._audit.record(
            call.connection,
            call.principal,
            Action.USER_CREATED,
            f"user:{user['id']}",
            after=body.model_dump(),
        )
        return _reply(user, location=f"/v1/users/{user['id']}")

    async def change(self, call: Call, user_id: int, body: UserChange) -> HttpReply:
        """Change a user at the version that the caller has read.

        Raise `Conflict` if the new address is taken, or if the change would leave no administrator.
        """
        async with self._postgres.transaction() as connection:
            user = None if user_id > MOST_ID else await user_repository.lock(connection, user_id)
            if user is None:
                raise _not_found(user_id)
            call.require_match(_etag(user))
            changes = {
                name: value
                for name, value in body.model_dump(exclude_none=True).items()
                if value != user[name]
            }
            if user["role"] == "admin" or "role" in changes:
                # Otherwise a caller could become an administrator by promoting a user or taking one over.
                call.principal.require(Scope.ADMIN)
            if not changes:
                return _reply(user)
            is_about_rights = not changes.keys().isdisjoint({"role", "status"})
            async with administrators.kept(connection) if is_about_rights else nullcontext():
                changed = await user_repository.update(connection, user_id, changes)
            if is_about_rights:
                await outbox.add(connection, [_limit(changed)])
            await self._audit.record(
                connection,
                call.principal,
                Action.USER_CHANGED,
                f"user:{user_id}",
                before={name: user[name] for name in changes},
                after=changes,
            )
        # A key's state depends on those that it comes from, and on its own user, whoever made it.
        await self._keyring.forget(user_id)
        return _reply(changed)


def _limit(user: Row) -> Outgoing:
    """Return the command that cancels a user's accepted work that exceeds the user's current rights."""
    allowed_now = allowed(frozenset(Scope), is_administrator=user["role"] == "admin")
    scopes = sorted(map(str, allowed_now)) if user["status"] == "active" else []
    limit = LimitOwner(owner_id=str(user["id"]), scopes=scopes, limited_at=user["updated_at"])
    return envelope.command(limit, tenant=str(user["id"]))


def _not_found(user_id: int) -> NotFound:
    return NotFound(f"There is no user {user_id}.")


def _etag(user: Row) -> str:
    return f'"{user["id"]}-{int(user["updated_at"].timestamp() * 1_000_000)}"'


def _reply(user: Row, *, location: str | None = None) -> HttpReply:
    view = UserView.model_validate(dict(user))
    return HttpReply(replies.document(view), etag=_etag(user), location=location)
