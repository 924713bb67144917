"""The response models of the reference."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


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
