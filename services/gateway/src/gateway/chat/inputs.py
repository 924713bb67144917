"""The inputs and answers of chat rooms."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from contracts.scopes import Scope
from gateway.http.changes import Change
from gateway.http.excerpts import Excerpt
from gateway.http.filters import CreatedWithin, PageById, PageQuery
from gateway.http.strict_json import MOST_ID

RoomName = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$",
        description="1 to 64 characters of a-z, 0-9, _ and -",
        examples=["lobby"],
    ),
]

# The role of a member of a private room; each includes the rights of the one before.
Role = Literal["reader", "writer", "manager"]


class RoomInput(BaseModel):
    """The body of `POST /v1/rooms`. A private room has members; its creator is the first manager."""

    model_config = ConfigDict(extra="forbid")
    name: RoomName
    private: bool = False


class MemberInput(BaseModel):
    """The body of `POST /v1/rooms/{room}/members`."""

    model_config = ConfigDict(extra="forbid")
    user_id: int = Field(ge=1, le=MOST_ID, description="the user who may enter")
    role: Role = Field(
        default="writer",
        description="a reader reads, subscribes and sees who is present; a writer also posts; "
        "a manager also manages the members",
    )


class MemberChange(Change):
    """The body of `PATCH /v1/rooms/{room}/members/{user_id}`."""

    thing = "member"
    role: Role | None = None


class MembersQuery(PageById):
    """The query of `GET /v1/rooms/{room}/members`."""


class RoomsQuery(CreatedWithin, PageQuery):
    """The query of `GET /v1/rooms`; the cursor is the last name seen."""


class MessagesQuery(BaseModel):
    """The query of `GET /v1/rooms/{room}/messages`: newest first, before the offset `cursor`."""

    model_config = ConfigDict(extra="forbid")
    limit: int = Field(default=50, ge=1, le=300)
    cursor: int = Field(default=MOST_ID, ge=1, le=MOST_ID)


class MessageInput(BaseModel):
    """The body of `POST /v1/rooms/{room}/messages`; sending the same `id` again changes nothing."""

    model_config = ConfigDict(extra="forbid")
    text: Annotated[str, Field(min_length=1, max_length=4000)]
    id: Annotated[str, Field(min_length=1, max_length=64)] | None = None


class RoomView(BaseModel):
    """A room; offsets of its messages count from 1 within `epoch`. `role` is the caller's, if a member."""

    name: str
    epoch: str
    last_offset: int
    created_by: str
    created_at: datetime
    private: bool
    role: Role | None


class RoomList(BaseModel):
    """A page of rooms by name."""

    data: list[RoomView]
    next_cursor: str | None


class MemberView(BaseModel):
    """A member of a private room."""

    user_id: int
    role: Role
    added_at: datetime


class MemberOutline(BaseModel):
    """A member that was added or changed, for a key without `chat:read`."""

    user_id: int


CHANGED_MEMBER = Excerpt(Scope.CHAT_READ, MemberOutline)


class MemberList(BaseModel):
    """A page of members by the id of their user."""

    data: list[MemberView]
    next_cursor: str | None


class MessageView(BaseModel):
    """A message, its author, and its offset in the room."""

    model_config = ConfigDict(extra="allow")
    text: str
    offset: int
    user_id: str
    user: str
    created_at: datetime


class MessageOutline(BaseModel):
    """A message that was posted, for a key without `chat:read`."""

    offset: int
    user_id: str
    user: str
    created_at: datetime


POSTED_MESSAGE = Excerpt(Scope.CHAT_READ, MessageOutline)


class MessageList(BaseModel):
    """A page of messages, newest first."""

    data: list[MessageView]
    next_cursor: str | None


def message_view(message: Any) -> dict[str, Any]:
    """Return a stored message as callers see it; fields written by the sender cannot replace its author."""
    return {
        **message.data,
        "offset": message.offset,
        "user_id": message.user_id,
        "user": message.user_name,
        "created_at": message.created_at,
    }
