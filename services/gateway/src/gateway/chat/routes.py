"""`/v1/rooms`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator

from chassis.errors import Conflict, DatabaseUnavailable, NotFound
from contracts.scopes import Scope
from gateway.chat.inputs import MessageList, MessageView, RoomList, RoomView
from gateway.chat.rooms import RoomService
from gateway.http.endpoints import Endpoint, get, json, post


def endpoints(service: RoomService) -> Iterator[Endpoint]:
    """Yield the endpoints of chat rooms."""
    yield get(
        "/v1/rooms",
        service.list,
        name="listRooms",
        summary="List the chat rooms by name",
        tag="Chat",
        scope=Scope.CHAT_READ,
        answers={200: json(RoomList)},
        errors=(DatabaseUnavailable,),
    )
    yield post(
        "/v1/rooms",
        service.create,
        name="createRoom",
        summary="Make a chat room",
        tag="Chat",
        scope=Scope.CHAT_WRITE,
        answers={201: json(RoomView, headers={"Location": "the room"})},
        errors=(Conflict, DatabaseUnavailable),
        examples={"a room": {"name": "standup"}},
    )
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
        answers={201: json(MessageView)},
        errors=(NotFound, DatabaseUnavailable),
        rate="chat",
        examples={"room": "lobby", "a message": {"text": "Good morning"}},
    )
