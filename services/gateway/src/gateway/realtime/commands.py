"""The commands of `/v1/realtime` as data: their arguments and answers, for the gateway and for documents.

As the protocol requires, unknown fields are ignored, because newer clients may send them.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticKnownError

from gateway.http.strict_json import MOST_ID

MOST_CHANNELS = 200
MOST_HISTORY = 300
MOST_CONFLATE_MS = 60_000
# The length of a token that is limited to the most channels with the longest names.
LONGEST_TOKEN = 24_000

Channel = Annotated[str, Field(min_length=1, max_length=255)]
Offset = Annotated[int, Field(ge=0, le=MOST_ID)]
Epoch = Annotated[str, Field(max_length=64)]


class Arguments(BaseModel):
    """The arguments of a command; types are strict, and unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class CommandAnswer(BaseModel):
    """The content of a reply, which is its member with the command's name."""

    model_config = ConfigDict(extra="forbid")


class Since(Arguments):
    """A position that a client has seen."""

    offset: Offset = 0
    epoch: Epoch = ""


class SubscribeOptions(Arguments):
    """The `data` of a subscription."""

    conflate_ms: int = Field(
        default=0, ge=0, le=MOST_CONFLATE_MS, description="minimum time between two quotes, in milliseconds"
    )


class RecoverArguments(Arguments):
    """The position from which a subscription continues, and how."""

    recover: bool = False
    epoch: Epoch = ""
    offset: Offset = 0
    join_leave: bool = Field(default=False, description="push joins and leaves; chat rooms only")
    flag: int = 0
    data: SubscribeOptions | None = None


def _few(subs: object) -> object:
    """Refuse too many channels before each of them is looked at."""
    if isinstance(subs, dict) and len(subs) > MOST_CHANNELS:
        context = {"field_type": "Dictionary", "max_length": MOST_CHANNELS, "actual_length": len(subs)}
        raise PydanticKnownError("too_long", context)
    return subs


class ConnectArguments(Arguments):
    """Authenticate. `subs` names channels to subscribe to at once."""

    token: str | None = Field(default=None, max_length=LONGEST_TOKEN)
    subs: Annotated[dict[Channel, RecoverArguments], BeforeValidator(_few)] = Field(
        default_factory=dict, max_length=MOST_CHANNELS
    )


class SubscribeArguments(RecoverArguments):
    """Subscribe to a channel."""

    channel: Channel


class ChannelArguments(Arguments):
    """A command whose only argument is the channel."""

    channel: Channel


class PublishArguments(ChannelArguments):
    """Post to a channel."""

    data: Any = None


class HistoryArguments(ChannelArguments):
    """Read publications; without `limit` the reply has only the position."""

    limit: int = Field(default=0, ge=-1)
    since: Since | None = None
    reverse: bool = False


class RefreshArguments(Arguments):
    """Replace the token by a new one of the same user."""

    token: str = Field(max_length=LONGEST_TOKEN)


class RpcArguments(Arguments):
    """Call a read-only operation of the HTTP API."""

    method: str = Field(max_length=100)
    data: Any = None


class PublisherInfo(CommandAnswer):
    """The publisher of a message: the user, and the connection if the message came over one of these."""

    user: str
    client: str | None = None


class PublicationAnswer(CommandAnswer):
    """A publication in an answer; `info` is that of chat messages."""

    data: Any
    offset: int
    time: int | None = None
    info: PublisherInfo | None = None


class SubscribeAnswer(CommandAnswer):
    """The channel's position, and the missed publications."""

    recoverable: bool
    positioned: bool
    epoch: str
    offset: int
    was_recovering: bool = False
    recovered: bool = False
    publications: list[PublicationAnswer] = Field(default_factory=list)


class ConnectAnswer(CommandAnswer):
    """The connection, its ping interval, and the expiry of its token."""

    client: str
    version: str
    node: str
    session: str
    ping: int
    pong: bool
    expires: bool = False
    ttl: int | None = None
    subs: dict[str, SubscribeAnswer] | None = None


class EmptyAnswer(CommandAnswer):
    """An empty reply: the command succeeded."""


class PresentClient(CommandAnswer):
    """A subscribed connection."""

    user: str
    client: str


class PresenceAnswer(CommandAnswer):
    """The subscribed connections of the channel on all gateways; `partial` if a gateway did not answer."""

    presence: dict[str, PresentClient]
    partial: bool | None = None


class PresenceStatsAnswer(CommandAnswer):
    """The number of subscribed connections and users of the channel, on all gateways."""

    num_clients: int
    num_users: int
    partial: bool | None = None


class HistoryAnswer(CommandAnswer):
    """Publications of a channel and its newest position."""

    publications: list[PublicationAnswer]
    epoch: str
    offset: int


class RefreshAnswer(CommandAnswer):
    """The connection with its new token."""

    client: str
    version: str
    expires: bool = False
    ttl: int | None = None


class RpcAnswer(CommandAnswer):
    """The answer of the operation."""

    data: Any
