"""The response models of the reference, and models of pushes that no feature defines."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from contracts.emails import EmailStatus
from contracts.message import Moment
from contracts.stocks import LiveBar


class Links(BaseModel):
    """The links at the root."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Tickwire",
                    "version": "0.1.0",
                    "docs": "/docs",
                    "openapi": "/openapi.json",
                    "asyncapi": "/asyncapi.json",
                    "problems": "/problems",
                    "runbooks": "/docs/runbooks",
                    "console": "/console/status",
                    "health": "/healthz",
                }
            ]
        }
    )
    name: str
    version: str
    docs: str
    openapi: str
    asyncapi: str
    problems: str
    runbooks: str
    console: str
    health: str


class EmailNews(BaseModel):
    """A publication on the channel of a mail: the status that summarizes its recipients."""

    id: UUID
    status: EmailStatus
    at: Moment


class BarNews(LiveBar):
    """A publication of the bars of a symbol. `state` is that of the feed when the bar is sent.

    `stale`: no bar has been pushed or closed for some seconds; `restarted`: the first bar of a new epoch.
    """

    state: Literal["live", "stale", "restarted"]


class ProblemView(BaseModel):
    """A problem type: its meaning, the action to take, and the operations that can answer with it."""

    type: str = Field(
        description="The value of `type` in problem documents.", examples=["/problems/not-found"]
    )
    status: int
    title: str
    meaning: str
    action: str = Field(description="What the caller should do.")
    retryable: bool = Field(description="Whether the same request can succeed later without a change.")
    operations: list[str] = Field(description="The ids of the operations.", examples=[["getQuote"]])


class ProblemList(BaseModel):
    """All problem types."""

    data: list[ProblemView]
