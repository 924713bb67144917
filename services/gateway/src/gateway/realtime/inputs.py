"""The inputs and answers of event streams and tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from contracts.scopes import Scope
from gateway.realtime.tokens import LONGEST_S, MOST_CHANNELS, SHORTEST_S
from gateway.stocks.inputs import Symbols

StreamToken = Annotated[
    str | None,
    # Together with the path and the rest of the query it must fit into a request line.
    Field(
        max_length=7000,
        description="a token of POST /v1/realtime/tokens, for clients that cannot send headers",
    ),
]


class StreamQuery(BaseModel):
    """The query of a stream of events."""

    model_config = ConfigDict(extra="forbid")
    token: StreamToken = None


class QuoteStreamQuery(StreamQuery):
    """The query of `GET /v1/stocks/stream`."""

    symbols: Symbols


class TokenInput(BaseModel):
    """The body of `POST /v1/realtime/tokens`: its lifetime, and limits in addition to those of the key."""

    model_config = ConfigDict(extra="forbid")
    ttl_s: int = Field(default=300, ge=SHORTEST_S, le=LONGEST_S, description="seconds until it expires")
    scopes: list[Scope] | None = Field(
        default=None,
        max_length=len(Scope),
        description="the scopes that it is limited to; null: all scopes of the key",
    )
    channels: list[Annotated[str, Field(min_length=1, max_length=255)]] | None = Field(
        default=None,
        max_length=MOST_CHANNELS,
        description="the channels that it is limited to, as quotes:AAPL; null: all that its scopes allow",
    )


class TokenView(BaseModel):
    """A token, which is shown once and never stored."""

    token: str
    expires_at: datetime
