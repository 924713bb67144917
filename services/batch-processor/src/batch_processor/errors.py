"""The errors of batch-processor."""

from __future__ import annotations

from chassis.errors import Conflict, NotFound, ServiceError, Unavailable


class BatchNotFound(NotFound):
    """There is no such batch or task, or it belongs to another owner."""

    code = "batch-not-found"


class InvalidCursor(ServiceError):
    """The cursor was not issued by this service."""

    code = "invalid-cursor"


class InvalidItem(ServiceError):
    """An item's payload does not fit the operation's schema; `detail` names the field."""

    code = "invalid-item"


class BadResult(ServiceError):
    """The value that an operation returned for an item cannot be stored as its result."""

    code = "bad-result"


class ResultTooLarge(ServiceError):
    """An item's result does not fit into the message that would return it."""

    code = "result-too-large"


class OperationNotHere(Unavailable):
    """This replica lacks the operation; during a rolling upgrade, one of a newer release may have it."""


class ProcessDied(Unavailable):
    """The process that ran an item died; another is started for the next attempt."""

    code = "worker-died"


class BackupNotFound(NotFound):
    """There is no such request for a backup."""


class BackupFailed(Unavailable):
    """The backup was not completed; `detail` says why."""

    code = "backup-failed"


class NoBackupAgent(ServiceError):
    """No agent that makes backups runs beside the services."""

    code = "no-backup-agent"


class ScheduleNotFound(NotFound):
    """There is no such schedule, or it belongs to another owner."""

    code = "schedule-not-found"


class TooManySchedules(Conflict):
    """The owner has reached its limit of schedules."""

    code = "too-many-schedules"

    def __init__(self, most: int) -> None:
        super().__init__(f"You already have {most} schedules, the most allowed; delete one first.")


class ScheduleBusy(Conflict):
    """The schedule cannot run now, because earlier runs have not ended."""

    code = "schedule-busy"


class ScheduleMoved(ServiceError):
    """The schedule has changed since the caller read it."""

    code = "precondition-failed"

    def __init__(self) -> None:
        super().__init__("The schedule has changed since it was read; read it again and repeat the change.")
