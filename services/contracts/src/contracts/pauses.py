"""Messages about pauses: an administrator stops all work of an operation, or of an owner, and resumes it."""

from __future__ import annotations

from typing import ClassVar, Literal

from contracts.message import Contract, Moment, Reply, Request
from contracts.topology import BATCH_PROCESSOR

PauseKind = Literal["operation", "owner"]


class Pause(Contract):
    """An operation or owner (`name`, of an owner the id of the user) of which nothing begins."""

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
    """Begin nothing more of an operation or an owner; a pause that is there stays as it is."""

    message_type: ClassVar[str] = "pauses.pause.v1"
    reply: ClassVar[type[Reply]] = Pauses
    service: ClassVar[str] = BATCH_PROCESSOR
    kind: PauseKind
    name: str
    reason: str = ""
    paused_by: str


class ResumeWork(Request):
    """Let the work of an operation or an owner go on; without a pause nothing changes."""

    message_type: ClassVar[str] = "pauses.resume.v1"
    reply: ClassVar[type[Reply]] = Pauses
    service: ClassVar[str] = BATCH_PROCESSOR
    kind: PauseKind
    name: str
