"""`/v1/me`, `/v1/users` and `/v1/api-keys`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator

from chassis.errors import Conflict, DatabaseUnavailable, Forbidden, NotFound, Unauthenticated
from contracts.scopes import Scope
from gateway.errors import IdempotencyConflict, IdempotencyMismatch, PreconditionFailed, PreconditionRequired
from gateway.http.endpoints import (
    Endpoint,
    Idempotency,
    Precondition,
    delete,
    get,
    json,
    nothing,
    patch,
    post,
)
from gateway.identity.inputs import (
    CHANGED_USER,
    KeyPage,
    KeyView,
    LoginView,
    Me,
    NewKey,
    SessionView,
    UserPage,
    UserView,
)
from gateway.identity.key_service import KeyService
from gateway.identity.login_service import LoginService
from gateway.identity.user_service import UserService

_REPEATED = (IdempotencyConflict, IdempotencyMismatch)
_ETAG = {"ETag": "the version of the user, for If-Match"}


def endpoints(users: UserService, keys: KeyService, logins: LoginService) -> Iterator[Endpoint]:
    """Yield the endpoints of users, API keys and login addresses."""
    yield get(
        "/v1/me",
        users.me,
        name="getMe",
        summary="Read the user and the rights of the calling key",
        tag="Users",
        scope=None,
        answers={200: json(Me)},
    )
    yield get(
        "/v1/users",
        users.page,
        name="listUsers",
        summary="List users",
        tag="Users",
        scope=Scope.USERS_READ,
        answers={200: json(UserPage)},
        errors=(DatabaseUnavailable,),
    )
    yield post(
        "/v1/users",
        users.create,
        name="createUser",
        summary="Create a user",
        tag="Users",
        scope=Scope.USERS_WRITE,
        idempotency=Idempotency.TRANSACTION,
        answers={201: json(UserView, headers={"Location": "the user", **_ETAG})},
        errors=(Conflict, DatabaseUnavailable, *_REPEATED),
        examples={"a member": {"name": "Ann", "email": "ann@example.com"}},
    )
    yield from _one_user(users)
    yield from _list_of_keys(keys)
    yield from _one_key(keys)
    yield from _logins(logins)


def _one_user(users: UserService) -> Iterator[Endpoint]:
    yield get(
        "/v1/users/<int:user_id>",
        users.get,
        name="getUser",
        summary="Read a user: yourself, or any user with users:read",
        tag="Users",
        scope=None,
        answers={200: json(UserView, headers=_ETAG)},
        errors=(NotFound, DatabaseUnavailable),
        examples={"user_id": 1},
    )
    yield get(
        "/user/<int:user_id>",
        users.get,
        name="getUserShort",
        summary="Read a user",
        tag="Short routes",
        scope=None,
        answers={200: json(UserView, headers=_ETAG)},
        errors=(NotFound, DatabaseUnavailable),
        is_alias=True,
        examples={"user_id": 1},
    )
    yield patch(
        "/v1/users/<int:user_id>",
        users.change,
        name="changeUser",
        summary="Change a user's name, address, role or status",
        tag="Users",
        scope=Scope.USERS_WRITE,
        answers={200: json(UserView, headers=_ETAG, excerpt=CHANGED_USER)},
        errors=(NotFound, Conflict, PreconditionFailed, PreconditionRequired, DatabaseUnavailable),
        precondition=Precondition.REQUIRED,
        examples={"user_id": 1, "another name": {"name": "Zoë"}},
    )


def _list_of_keys(keys: KeyService) -> Iterator[Endpoint]:
    yield get(
        "/v1/api-keys",
        keys.page,
        name="listApiKeys",
        summary="List API keys: your own, or a user's with users:read",
        tag="API keys",
        scope=Scope.KEYS_READ,
        answers={200: json(KeyPage)},
        errors=(DatabaseUnavailable,),
    )
    yield post(
        "/v1/api-keys",
        keys.create,
        name="createApiKey",
        summary="Create an API key as a child of your own",
        tag="API keys",
        scope=Scope.KEYS_WRITE,
        idempotency=Idempotency.TRANSACTION,
        answers={201: json(NewKey, headers={"Location": "the key"})},
        errors=(Conflict, DatabaseUnavailable, *_REPEATED),
        after_repeat=keys.show_again,
        examples={"a key for quotes": {"name": "shop", "scopes": ["quotes:read"]}},
    )


def _one_key(keys: KeyService) -> Iterator[Endpoint]:
    yield get(
        "/v1/api-keys/<key_id>",
        keys.get,
        name="getApiKey",
        summary="Read an API key",
        tag="API keys",
        scope=None,
        answers={200: json(KeyView, headers={"ETag": "the version of the key, for If-Match"})},
        errors=(NotFound, DatabaseUnavailable),
        examples={"key_id": "0123456789abcdef"},
    )
    yield post(
        "/v1/api-keys/<key_id>/rotate",
        keys.rotate,
        name="rotateApiKey",
        summary="Rotate the secret of an API key; the old secret keeps working for a while",
        tag="API keys",
        scope=None,
        idempotency=Idempotency.TRANSACTION,
        answers={200: json(NewKey)},
        errors=(NotFound, Forbidden, Conflict, PreconditionFailed, DatabaseUnavailable, *_REPEATED),
        precondition=Precondition.OPTIONAL,
        after_repeat=keys.show_again,
        examples={"key_id": "0123456789abcdef", "an hour": {"overlap_s": 3600}},
    )
    yield delete(
        "/v1/api-keys/<key_id>",
        keys.revoke,
        name="revokeApiKey",
        summary="Revoke an API key and all keys that it created",
        tag="API keys",
        scope=None,
        answers={204: nothing()},
        errors=(NotFound, Conflict, PreconditionFailed, DatabaseUnavailable),
        precondition=Precondition.OPTIONAL,
        examples={"key_id": "0123456789abcdef"},
    )


def _logins(logins: LoginService) -> Iterator[Endpoint]:
    yield post(
        "/v1/console/logins",
        logins.create,
        name="createLogin",
        summary="Create an address that signs a browser in to the console once",
        tag="API keys",
        scope=Scope.ADMIN,
        answers={200: json(LoginView)},
        errors=(Forbidden,),
        idempotency=Idempotency.NONE,
        examples={"for five minutes": {"ttl_s": 300}},
    )
    yield post(
        "/v1/console/sessions",
        logins.exchange,
        name="createSession",
        summary="Exchange the token of a login address for an API key that lasts half a day",
        tag="API keys",
        scope=None,
        is_public=True,
        answers={200: json(SessionView)},
        errors=(Unauthenticated, Conflict, DatabaseUnavailable),
        idempotency=Idempotency.NONE,
        examples={"the token of an address": {"token": "tw_login_…"}},
    )
