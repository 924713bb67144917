"""The messages that gateways send each other, so that each can serve the sockets of all."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from contracts.message import Json, LiveMessage, Moment


class ChatPosted(LiveMessage):
    """A chat message was stored, or the members of a room have changed (exchange `live`, routing key `chat`).

    It has either `members`, or the fields of the message.
    """

    message_type: ClassVar[str] = "gateway.chat-posted.v1"
    routing_key: ClassVar[str] = "chat"
    senders: ClassVar[tuple[str, ...]] = ("gateway",)
    gateway: str
    room: str
    members: Literal["changed"] | None = None
    offset: int | None = None
    user_id: str | None = None
    user_name: str | None = None
    data: Json = None
    created_at: Moment | None = None
    client: str | None = None


class WaitingEmailEnded(LiveMessage):
    """A mail ended before it reached the email service (exchange `live`, routing key `mail`)."""

    message_type: ClassVar[str] = "gateway.waiting-email-ended.v1"
    routing_key: ClassVar[str] = "mail"
    senders: ClassVar[tuple[str, ...]] = ("gateway",)
    email_id: UUID
    status: Literal["cancelled", "failed"]
    at: Moment


class PresenceTold(LiveMessage):
    """A gateway's message about its connections (exchange `live`, routing key `presence`).

    It has one of four: `alive`, at intervals, and false when it stops; `moves`, each the channel, connection
    and user, and whether it has joined; the id of a `question` about a `channel`; or the id of the question
    as `answer`, with the subscribers here.
    """

    message_type: ClassVar[str] = "gateway.presence.v1"
    routing_key: ClassVar[str] = "presence"
    senders: ClassVar[tuple[str, ...]] = ("gateway",)
    gateway: str
    alive: bool | None = None
    moves: list[tuple[str, str, str, bool]] | None = None
    question: str | None = None
    channel: str | None = None
    answer: str | None = None
    clients: dict[str, str] | None = None
    num_clients: int | None = None
    users: list[str] | None = None
