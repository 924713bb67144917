"""Messages about pauses: an administrator stops all work of an operation, or of an owner, and resumes it."""

from __future__ import annotations

from typing import ClassVar, Literal

from contracts.message import Contract, Moment, Reply, Request
from contracts.topology import BATCH_PROCESSOR

PauseKind = Literal["operation", "owner"]


class Pause(Contract):
    """A paused operation or owner, of which no work starts; `name` of an owner is the id of the user."""

    kind: PauseKind
    name: str
    reason: str = ""
    paused_by: str
    paused_at: Moment


class Pauses(Reply):
    """All pauses."""

    data: list[Pause]


class ListPauses(Request):
    """Ask for all pauses."""

    message_type: ClassVar[str] = "pauses.list.v1"
    reply: ClassVar[type[Reply]] = Pauses
    service: ClassVar[str] = BATCH_PROCESSOR


class PauseWork(Request):
    """Pause the work of an operation or an owner; an existing pause is not changed."""

    message_type: ClassVar[str] = "pauses.pause.v1"
    reply: ClassVar[type[Reply]] = Pauses
    service: ClassVar[str] = BATCH_PROCESSOR
    kind: PauseKind
    name: str
    reason: str = ""
    paused_by: str


class ResumeWork(Request):
    """Resume the work of an operation or an owner; without a pause nothing changes."""

    message_type: ClassVar[str] = "pauses.resume.v1"
    reply: ClassVar[type[Reply]] = Pauses
    service: ClassVar[str] = BATCH_PROCESSOR
    kind: PauseKind
    name: str
