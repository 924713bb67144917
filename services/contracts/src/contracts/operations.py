"""The operations that batch-processor offers."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from contracts.message import Contract, Event, Json


class Operation(Contract):
    """A named function that batches and tasks run on each item; `item_schema` is a JSON Schema.

    A caller needs all of `required_scopes` to name it. They are strings here, so that a reader accepts an
    announcement with a scope that it does not know yet; nobody has such a scope.
    """

    name: str
    description: str
    item_schema: dict[str, Json]
    required_scopes: list[str] = Field(default_factory=list)


class OperationsAnnounced(Event):
    """The operations that batch-processor offers, announced at each start (exchange `events`)."""

    message_type: ClassVar[str] = "operations.announced.v1"
    routing_key: ClassVar[str] = "operations.announced"
    operations: list[Operation]
