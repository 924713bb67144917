"""The request and response models of the short routes."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from contracts.mail import Body, Recipients, Subject


class MailInput(BaseModel):
    """The body of `POST /send-email`: a mail of plain text. `to` is one address or a list."""

    model_config = ConfigDict(extra="forbid")
    to: Recipients
    subject: Subject = ""
    body: Body


class BatchesInput(BaseModel):
    """The body of `POST /process-batch`: each element becomes an item."""

    model_config = ConfigDict(extra="forbid")
    batches: list[Any] = Field(min_length=1, max_length=100_000)


class DataInput(BaseModel):
    """The body of `POST /process-data`: each element becomes an item."""

    model_config = ConfigDict(extra="forbid")
    items: list[Any] = Field(min_length=1, max_length=100_000)


class Taken(BaseModel):
    """The answer of a short route that accepted work."""

    message: str
    id: UUID
