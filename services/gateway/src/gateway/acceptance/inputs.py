"""The common part of all answers to accepted work."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from contracts.message import Next
from gateway.http.endpoints import json

EXAMPLE_ID = "0197b1f0-5a1c-7c3e-9f0e-2f5b1c9d7a11"


class AcceptedWork(BaseModel):
    """Accepted work: its id, under which its state can be read at once, and the next step."""

    id: UUID
    status: Literal["queued"]
    next: Next


ACCEPTED = json(
    AcceptedWork,
    description="Accepted: the work will be done once, even if services behind the gateway fail.",
    headers={"Location": "the path of its state"},
)
