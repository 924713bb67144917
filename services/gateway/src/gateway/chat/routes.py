"""`/v1/rooms`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator

from chassis.errors import Conflict, DatabaseUnavailable, Forbidden, NotFound
from contracts.scopes import Scope
from gateway.chat.inputs import (
    CHANGED_MEMBER,
    POSTED_MESSAGE,
    MemberList,
    MemberView,
    MessageList,
    MessageView,
    RoomList,
    RoomView,
)
from gateway.chat.room_service import RoomService
from gateway.errors import PreconditionFailed, PreconditionRequired
from gateway.http.endpoints import (
    CONTENT_TAG,
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
from gateway.http.rates import RateClass

_ETAG = {"ETag": "the version of the member, for If-Match"}


def endpoints(service: RoomService) -> Iterator[Endpoint]:
    """Yield the endpoints of chat rooms."""
    yield get(
        "/v1/rooms",
        service.list,
        name="listRooms",
        summary="List the rooms that you may enter, in the order of their names",
        tag="Chat",
        scope=Scope.CHAT_READ,
        answers={200: json(RoomList)},
        errors=(DatabaseUnavailable,),
    )
    yield post(
        "/v1/rooms",
        service.create,
        name="createRoom",
        summary="Create a chat room",
        tag="Chat",
        scope=Scope.CHAT_WRITE,
        idempotency=Idempotency.TRANSACTION,
        answers={201: json(RoomView, headers={"Location": "the room"})},
        errors=(Conflict, DatabaseUnavailable),
        examples={"a room": {"name": "standup"}, "a private room": {"name": "board", "private": True}},
    )
    yield get(
        "/v1/rooms/<room>",
        service.get,
        name="getRoom",
        summary="Show a room and your role in it",
        tag="Chat",
        scope=Scope.CHAT_READ,
        answers={200: json(RoomView, headers=CONTENT_TAG)},
        errors=(NotFound, DatabaseUnavailable),
        examples={"room": "lobby"},
    )
    yield from _messages(service)
    yield from _members(service)
    yield from _one_member(service)


def _messages(service: RoomService) -> Iterator[Endpoint]:
    yield get(
        "/v1/rooms/<room>/messages",
        service.messages,
        name="listMessages",
        summary="Read the messages of a room, newest first",
        tag="Chat",
        scope=Scope.CHAT_READ,
        answers={200: json(MessageList)},
        errors=(NotFound, DatabaseUnavailable),
        examples={"room": "lobby"},
    )
    yield post(
        "/v1/rooms/<room>/messages",
        service.post,
        name="postMessage",
        summary="Post a message to a room",
        tag="Chat",
        scope=Scope.CHAT_WRITE,
        idempotency=Idempotency.TRANSACTION,
        answers={201: json(MessageView, excerpt=POSTED_MESSAGE)},
        errors=(Forbidden, NotFound, DatabaseUnavailable),
        rate=RateClass.CHAT,
        examples={"room": "lobby", "a message": {"text": "Good morning"}},
    )


def _members(service: RoomService) -> Iterator[Endpoint]:
    yield get(
        "/v1/rooms/<room>/members",
        service.members,
        name="listMembers",
        summary="List the members of a private room",
        tag="Chat",
        scope=Scope.CHAT_READ,
        answers={200: json(MemberList)},
        errors=(NotFound, DatabaseUnavailable),
        examples={"room": "lobby"},
    )
    yield post(
        "/v1/rooms/<room>/members",
        service.put_member,
        name="putMember",
        summary="Add a user to a private room, or change the role of a member",
        tag="Chat",
        scope=Scope.CHAT_WRITE,
        idempotency=Idempotency.TRANSACTION,
        answers={200: json(MemberView, excerpt=CHANGED_MEMBER)},
        errors=(Forbidden, NotFound, Conflict, DatabaseUnavailable),
        examples={"room": "board", "a writer": {"user_id": 2, "role": "writer"}},
    )


def _one_member(service: RoomService) -> Iterator[Endpoint]:
    yield get(
        "/v1/rooms/<room>/members/<int:user_id>",
        service.member,
        name="getMember",
        summary="Read the role of a member of a private room",
        tag="Chat",
        scope=Scope.CHAT_READ,
        answers={200: json(MemberView, headers=_ETAG)},
        errors=(NotFound, DatabaseUnavailable),
        examples={"room": "board", "user_id": 2},
    )
    yield patch(
        "/v1/rooms/<room>/members/<int:user_id>",
        service.change_member,
        name="changeMember",
        summary="Change the role of a member of a private room",
        tag="Chat",
        scope=Scope.CHAT_WRITE,
        answers={200: json(MemberView, headers=_ETAG, excerpt=CHANGED_MEMBER)},
        errors=(Forbidden, NotFound, Conflict, PreconditionFailed, PreconditionRequired, DatabaseUnavailable),
        precondition=Precondition.REQUIRED,
        examples={"room": "board", "user_id": 2, "a reader": {"role": "reader"}},
    )
    yield delete(
        "/v1/rooms/<room>/members/<int:user_id>",
        service.remove_member,
        name="removeMember",
        summary="Remove a member of a private room, or leave it",
        tag="Chat",
        scope=Scope.CHAT_WRITE,
        answers={204: nothing()},
        errors=(Forbidden, NotFound, Conflict, PreconditionFailed, DatabaseUnavailable),
        precondition=Precondition.OPTIONAL,
        examples={"room": "board", "user_id": 2},
    )
