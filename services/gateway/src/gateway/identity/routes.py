"""`/v1/me`, `/v1/users` and `/v1/api-keys`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from chassis.cache import Cache
from chassis.errors import Conflict, Forbidden, NotFound
from contracts.addresses import BareAddress
from contracts.scopes import Scope
from gateway.http.calls import Call
from gateway.http.endpoints import Endpoint, Idempotency, delete, get, json, nothing, patch, post
from gateway.http.principal import Principal
from gateway.http.problems import invalid
from gateway.http.replies import Reply, document
from gateway.http.strict_json import MOST_ID, Instant
from gateway.identity import keys
from gateway.identity.keyring import KeyRing
from gateway.identity.repository import IdentityRepository

_CACHE_S = 60


def in_future(moment: datetime) -> datetime:
    """`moment`, if it is still to come."""
    if moment <= datetime.now(UTC):
        raise ValueError("must be in the future")
    return moment


Expiry = Annotated[Instant, AfterValidator(in_future)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Role = Literal["admin", "member"]


class UserInput(BaseModel):
    """The body of `POST /v1/users`."""

    model_config = ConfigDict(extra="forbid")
    name: Name
    email: BareAddress
    role: Role = "member"


class UserChange(BaseModel):
    """The body of `PATCH /v1/users/{id}`: what is given is changed."""

    model_config = ConfigDict(extra="forbid")
    name: Name | None = None
    email: BareAddress | None = None
    role: Role | None = None


class KeyInput(BaseModel):
    """The body of `POST /v1/api-keys`; `user_id` of another user only for administrators."""

    model_config = ConfigDict(extra="forbid")
    name: Name
    scopes: list[Scope] = Field(min_length=1, max_length=20)
    user_id: int | None = Field(default=None, ge=1, le=MOST_ID)
    expires_at: Expiry | None = None


class UsersQuery(BaseModel):
    """The query of `GET /v1/users`; the cursor is the last id seen."""

    model_config = ConfigDict(extra="forbid")
    limit: int = Field(default=50, ge=1, le=200)
    cursor: int = Field(default=0, ge=0, le=MOST_ID)


class UserService:
    """Users, read through memcached and forgotten there on every change."""

    def __init__(self, repository: IdentityRepository, cache: Cache) -> None:
        self._repository = repository
        self._cache = cache

    async def get(self, principal: Principal, user_id: int) -> bytes:
        """A user as JSON: oneself, or anybody for an administrator."""
        is_visible = user_id == principal.user_id or principal.is_admin
        if not is_visible or user_id > MOST_ID:
            raise NotFound(f"There is no user {user_id}.")
        cached = await self._cache.get(str(user_id))
        if cached is not None:
            return cached
        user = await self._repository.get_user(user_id)
        if user is None:
            raise NotFound(f"There is no user {user_id}.")
        body = orjson.dumps(dict(user), option=orjson.OPT_UTC_Z)
        await self._cache.set(str(user_id), body, ttl_s=_CACHE_S)
        return body

    async def show(self, call: Call, user_id: int) -> bytes:
        """Return a user: oneself, or anybody for an administrator."""
        return await self.get(call.principal, user_id)

    async def create(self, _: Call, body: UserInput) -> Reply:
        """Make a user. Raise `Conflict` when the address is taken."""
        created = await self._repository.insert_user(body.name, body.email, body.role)
        if created is None:
            raise Conflict(f"There is a user with the address {body.email} already.")
        return Reply(document(dict(created)), location=f"/v1/users/{created['id']}")

    async def change(self, _: Call, user_id: int, body: UserChange) -> dict[str, Any]:
        """Change a user. Raise `Conflict` when the new address is another's."""
        changed = None
        if user_id <= MOST_ID:
            changed = await self._repository.update_user(user_id, body.name, body.email, body.role)
        if changed is None:
            raise NotFound(f"There is no user {user_id}.")
        await self._cache.delete(str(user_id))
        return dict(changed)

    async def list(self, _: Call, query: UsersQuery) -> dict[str, object]:
        """Return a page of users by id."""
        users = await self._repository.list_users(query.cursor, query.limit + 1)
        page = users[: query.limit]
        return {"data": page, "next_cursor": str(page[-1]["id"]) if len(users) > query.limit else None}


class KeyService:
    """The caller's own keys, and those of others for an administrator."""

    def __init__(self, repository: IdentityRepository, keyring: KeyRing, pepper: str) -> None:
        self._repository = repository
        self._keyring = keyring
        self._pepper = pepper

    async def me(self, call: Call) -> dict[str, Any]:
        """Return who the caller is and what the key allows."""
        principal = call.principal
        return {
            "user": {"id": principal.user_id, "name": principal.user_name, "role": principal.role},
            "key": {"id": principal.key_id, "scopes": sorted(principal.scopes)},
        }

    async def list(self, call: Call) -> dict[str, Any]:
        """Return the caller's keys without their secrets."""
        return {"data": await self._repository.list_keys(call.principal.user_id), "next_cursor": None}

    async def create(self, call: Call, body: KeyInput) -> Reply:
        """Make a key; its text is shown this once."""
        principal = call.principal
        user_id = body.user_id or principal.user_id
        if user_id != principal.user_id and not principal.is_admin:
            raise Forbidden("Only an administrator makes keys for somebody else.")
        missing = [scope for scope in body.scopes if not principal.may(scope)]
        if missing:
            raise Forbidden(f"A key cannot give what yours does not have: {', '.join(missing)}.")
        key = keys.new_key()
        created_at: datetime | None = await self._repository.insert_key(
            key.id,
            user_id,
            name=body.name,
            digest=keys.digest(self._pepper, key),
            scopes=list(body.scopes),
            expires_at=body.expires_at,
        )
        if created_at is None:
            raise invalid("/user_id", f"There is no user {user_id}.")
        made = {
            "id": key.id,
            "key": str(key),
            "name": body.name,
            "scopes": body.scopes,
            "expires_at": body.expires_at,
            "created_at": created_at,
        }
        return Reply(document(made))

    async def revoke(self, call: Call, key_id: str) -> None:
        """End a key."""
        owner = None if call.principal.is_admin else call.principal.user_id
        if not keys.is_id(key_id) or not await self._repository.revoke_key(key_id, owner):
            # Not repeated: it may be a whole key.
            raise NotFound("There is no API key of this id.")
        self._keyring.forget()


def endpoints(users: UserService, service: KeyService) -> Iterator[Endpoint]:
    """Yield the endpoints of users and keys."""
    yield get(
        "/v1/me",
        service.me,
        name="getMe",
        summary="Report who calls and what the key allows",
        tag="Keys",
        scope=None,
        answers={200: json()},
    )
    yield get(
        "/v1/users",
        users.list,
        name="listUsers",
        summary="List the users",
        tag="Users",
        scope=Scope.USERS_READ,
        answers={200: json()},
    )
    yield post(
        "/v1/users",
        users.create,
        name="createUser",
        summary="Make a user",
        tag="Users",
        scope=Scope.USERS_WRITE,
        answers={201: json()},
        errors=(Conflict,),
    )
    yield get(
        "/v1/users/<int:user_id>",
        users.show,
        name="getUser",
        summary="Read a user",
        tag="Users",
        scope=None,
        answers={200: json()},
        errors=(NotFound,),
    )
    yield get(
        "/user/<int:user_id>",
        users.show,
        name="getUserShort",
        summary="Read a user",
        tag="Short routes",
        scope=None,
        answers={200: json()},
        errors=(NotFound,),
        is_alias=True,
    )
    yield patch(
        "/v1/users/<int:user_id>",
        users.change,
        name="changeUser",
        summary="Change a user",
        tag="Users",
        scope=Scope.USERS_WRITE,
        answers={200: json()},
        errors=(NotFound, Conflict),
    )
    yield get(
        "/v1/api-keys",
        service.list,
        name="listKeys",
        summary="List your API keys",
        tag="Keys",
        scope=None,
        answers={200: json()},
    )
    yield post(
        "/v1/api-keys",
        service.create,
        name="createKey",
        summary="Make an API key",
        tag="Keys",
        scope=None,
        answers={201: json()},
        idempotency=Idempotency.NONE,
    )
    yield delete(
        "/v1/api-keys/<key_id>",
        service.revoke,
        name="revokeKey",
        summary="End an API key",
        tag="Keys",
        scope=None,
        answers={204: nothing()},
        errors=(NotFound,),
    )
