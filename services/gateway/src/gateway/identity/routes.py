"""`/v1/me`, `/v1/users` and `/v1/api-keys`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from quart import Response

from chassis.cache import Cache
from chassis.errors import Conflict, Forbidden, NotFound
from contracts.addresses import BareAddress
from contracts.scopes import Scope
from gateway.http.endpoint import Api, answer, invalid, read_json, read_query
from gateway.http.principal import Principal
from gateway.http.strict_json import MOST_ID, Instant
from gateway.identity import keys
from gateway.identity.keyring import KeyRing
from gateway.identity.repository import IdentityRepository, User

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

    async def create(self, user: UserInput) -> User:
        """A new user; raises `Conflict` when the address is taken."""
        created = await self._repository.insert_user(user.name, user.email, user.role)
        if created is None:
            raise Conflict(f"There is a user with the address {user.email} already.")
        return created

    async def change(self, user_id: int, change: UserChange) -> User:
        """Change a user; raises `Conflict` when the new address is another's."""
        changed = None
        if user_id <= MOST_ID:
            changed = await self._repository.update_user(user_id, change.name, change.email, change.role)
        if changed is None:
            raise NotFound(f"There is no user {user_id}.")
        await self._cache.delete(str(user_id))
        return changed

    async def page(self, query: UsersQuery) -> dict[str, object]:
        """A page of users by id."""
        users = await self._repository.list_users(query.cursor, query.limit + 1)
        page = users[: query.limit]
        return {"data": page, "next_cursor": str(page[-1]["id"]) if len(users) > query.limit else None}


def register(api: Api, service: UserService, repository: IdentityRepository, pepper: str) -> None:
    """Serve the routes."""

    @api.route("/v1/me", scope=None)
    async def me(principal: Principal) -> Response:
        return answer(
            {
                "user": {"id": principal.user_id, "name": principal.user_name, "role": principal.role},
                "key": {"id": principal.key_id, "scopes": sorted(principal.scopes)},
            }
        )

    _register_users(api, service)
    _register_keys(api, repository, api.keyring, pepper)


def _register_users(api: Api, service: UserService) -> None:
    @api.route("/v1/users", scope="admin")
    async def list_users(_: Principal) -> Response:
        return answer(await service.page(read_query(UsersQuery)))

    @api.route("/v1/users", methods=("POST",), scope="admin")
    async def post_user(_: Principal) -> Response:
        user = await service.create(await read_json(UserInput))
        return answer(dict(user), 201, {"location": f"/v1/users/{user['id']}"})

    @api.route("/v1/users/<int:user_id>", scope=None)
    async def get_user(principal: Principal, user_id: int) -> Response:
        return answer(await service.get(principal, user_id))

    @api.route("/v1/users/<int:user_id>", methods=("PATCH",), scope="admin")
    async def patch_user(_: Principal, user_id: int) -> Response:
        return answer(dict(await service.change(user_id, await read_json(UserChange))))


def _register_keys(api: Api, repository: IdentityRepository, keyring: KeyRing, pepper: str) -> None:
    @api.route("/v1/api-keys", scope=None)
    async def list_keys(principal: Principal) -> Response:
        return answer({"data": await repository.list_keys(principal.user_id), "next_cursor": None})

    @api.route("/v1/api-keys", methods=("POST",), scope=None)
    async def post_key(principal: Principal) -> Response:
        return await _create_key(principal, await read_json(KeyInput), repository, pepper)

    @api.route("/v1/api-keys/<key_id>", methods=("DELETE",), scope=None)
    async def delete_key(principal: Principal, key_id: str) -> Response:
        owner = None if principal.is_admin else principal.user_id
        if not keys.is_id(key_id) or not await repository.revoke_key(key_id, owner):
            # Not repeated: it may be a whole key.
            raise NotFound("There is no API key of this id.")
        keyring.forget()
        return Response(b"", 204)


async def _create_key(
    principal: Principal, wanted: KeyInput, repository: IdentityRepository, pepper: str
) -> Response:
    user_id = wanted.user_id or principal.user_id
    if user_id != principal.user_id and not principal.is_admin:
        raise Forbidden("Only an administrator makes keys for somebody else.")
    missing = [scope for scope in wanted.scopes if not principal.may(scope)]
    if missing:
        raise Forbidden(f"A key cannot give what yours does not have: {', '.join(missing)}.")
    key = keys.new_key()
    created_at: datetime | None = await repository.insert_key(
        key.id,
        user_id,
        name=wanted.name,
        digest=keys.digest(pepper, key),
        scopes=list(wanted.scopes),
        expires_at=wanted.expires_at,
    )
    if created_at is None:
        raise invalid("/user_id", f"There is no user {user_id}.")
    body = {
        "id": key.id,
        "key": str(key),
        "name": wanted.name,
        "scopes": wanted.scopes,
        "created_at": created_at,
    }
    return answer(body, 201, {"cache-control": "no-store"})
