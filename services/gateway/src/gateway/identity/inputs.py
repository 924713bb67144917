"""The inputs and answers of users and API keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from contracts.addresses import BareAddress
from contracts.mail_headers import one_line
from contracts.message import Moment
from contracts.scopes import Scope
from contracts.times import Instant
from gateway.http.changes import Change
from gateway.http.excerpts import Excerpt
from gateway.http.filters import CreatedWithin, PageById, PageQuery, Several
from gateway.http.strict_json import MOST_ID

LONGEST_OVERLAP_S = 7 * 24 * 3600
LONGEST_LOGIN_S = 3600
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The place after which a page of keys begins: the creation of a key in microseconds, and its id.
_PLACE = r"^[0-9]{1,17}-[0-9a-f]{16}$"


def in_future(moment: datetime) -> datetime:
    """Return `moment` if it is in the future. Raise `ValueError` otherwise."""
    if moment <= datetime.now(UTC):
        raise ValueError("must be in the future")
    return moment


def each_once(scopes: list[Scope]) -> list[Scope]:
    """Return `scopes` if none of them is repeated. Raise `ValueError` otherwise."""
    if len(set(scopes)) < len(scopes):
        raise ValueError("must name each scope once")
    return scopes


Expiry = Annotated[Instant, AfterValidator(in_future)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(one_line)]
Role = Literal["admin", "member"]
UserStatus = Literal["active", "disabled"]
KeyStatus = Literal["active", "revoked", "expired", "disabled"]


class UserInput(BaseModel):
    """The body of `POST /v1/users`."""

    model_config = ConfigDict(extra="forbid")
    name: Name
    email: BareAddress
    role: Role = "member"


class UserChange(Change):
    """The body of `PATCH /v1/users/{id}`: the given fields are changed. A disabled user has no rights."""

    thing = "user"
    name: Name | None = None
    email: BareAddress | None = None
    role: Role | None = None
    status: UserStatus | None = None


class UserView(BaseModel):
    """A user."""

    id: int
    name: str
    email: str
    role: Role
    status: UserStatus
    created_at: Moment
    updated_at: Moment


class UserOutline(BaseModel):
    """A user that was changed, for a key without `users:read`."""

    id: int
    updated_at: Moment


CHANGED_USER = Excerpt(Scope.USERS_READ, UserOutline)


class UserFilter(CreatedWithin):
    """A filter of users."""

    role: Several[Role] | None = None
    status: Several[UserStatus] | None = None


class UsersQuery(UserFilter, PageById):
    """The query of `GET /v1/users`."""


class UserPage(BaseModel):
    """Users in the order of their ids."""

    data: list[UserView]
    next_cursor: str | None = None


class KeyInput(BaseModel):
    """The body of `POST /v1/api-keys`. Without `expires_at` the key expires with the key that creates it."""

    model_config = ConfigDict(extra="forbid")
    name: Name
    scopes: Annotated[
        list[Scope],
        Field(min_length=1, max_length=len(Scope), json_schema_extra={"uniqueItems": True}),
        AfterValidator(each_once),
    ]
    user_id: int | None = Field(
        default=None,
        ge=1,
        le=MOST_ID,
        description="the owner; creating a key for another user needs users:write, and for another "
        "administrator admin",
    )
    expires_at: Expiry | None = None


class RotationInput(BaseModel):
    """The body of `POST /v1/api-keys/{id}/rotate`: how long the previous secret keeps working."""

    model_config = ConfigDict(extra="forbid")
    overlap_s: int = Field(default=3600, ge=0, le=LONGEST_OVERLAP_S)


class KeyFilter(CreatedWithin):
    """A filter of keys; another user's keys need the scope users:read."""

    user_id: int | None = Field(default=None, ge=1, le=MOST_ID)
    status: Several[KeyStatus] | None = None


class KeysQuery(KeyFilter, PageQuery):
    """The query of `GET /v1/api-keys`."""

    cursor: str | None = Field(default=None, pattern=_PLACE)

    @property
    def place(self) -> tuple[datetime, str]:
        """The time of creation and the id after which the page begins."""
        moment, _, key_id = (self.cursor or "0-").partition("-")
        return EPOCH + timedelta(microseconds=int(moment)), key_id


class KeyView(BaseModel):
    """An API key without its secret.

    `expires_at` is the end of the key or of one of its ancestors, whichever comes first; `effective_scopes`
    are the rights that it has now. Until `previous_until` the secret before the last rotation also works.
    """

    id: str
    user_id: int
    name: str
    status: KeyStatus
    scopes: list[Scope]
    effective_scopes: list[Scope]
    parent_id: str | None
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    rotated_at: Moment | None
    previous_until: Moment | None
    last_used_at: Moment | None


class NewKey(KeyView):
    """An API key with its secret text, which is shown once."""

    key: str = Field(examples=["tw_live_0123456789abcdef_(43 characters)(6 of a checksum)"])


class KeyPage(BaseModel):
    """API keys in the order of their creation."""

    data: list[KeyView]
    next_cursor: str | None = None


class Myself(BaseModel):
    """The user of the calling key."""

    id: int
    name: str
    role: Role


class MyKey(BaseModel):
    """The calling key: the scopes that it was created with, and those that it has now."""

    id: str
    scopes: list[Scope]
    effective_scopes: list[Scope]
    expires_at: Moment | None


class Me(BaseModel):
    """The caller: its user and its key."""

    user: Myself
    key: MyKey


class LoginInput(BaseModel):
    """The body of `POST /v1/console/logins`."""

    model_config = ConfigDict(extra="forbid")
    ttl_s: int = Field(default=600, ge=10, le=LONGEST_LOGIN_S, description="seconds until it expires")


class LoginView(BaseModel):
    """A login address, which opens the console once. It is shown once and never stored."""

    path: str = Field(examples=["/console/login#tw_login_…"])
    expires_at: Moment


class SessionInput(BaseModel):
    """The body of `POST /v1/console/sessions`: the part after the `#` of a login address."""

    model_config = ConfigDict(extra="forbid")
    token: str = Field(min_length=1, max_length=1024)


class SessionView(BaseModel):
    """The API key that a browser gets for a login address, and its expiry."""

    key: str = Field(examples=["tw_live_0123456789abcdef_(43 characters)(6 of a checksum)"])
    key_id: str
    expires_at: Moment
