"""The errors that are batch-processor's own."""

from __future__ import annotations

from chassis.errors import Conflict, NotFound, ServiceError, Unavailable


class BatchNotFound(NotFound):
    """No such batch or task, or it belongs to another owner."""

    code = "batch-not-found"


class InvalidCursor(ServiceError):
    """The cursor was not given out by this service."""

    code = "invalid-cursor"


class InvalidItem(ServiceError):
    """An item's payload does not fit the operation's schema; `detail` names the field."""

    code = "invalid-item"


class BadResult(ServiceError):
    """The value that an operation returned for an item cannot be stored as its result."""

    code = "bad-result"


class ResultTooLarge(ServiceError):
    """An item's result does not fit into a message with which it could be asked for."""

    code = "result-too-large"


class OperationNotHere(Unavailable):
    """This replica lacks the operation; one of a newer release may have it, while both run side by side."""


class ProcessDied(Unavailable):
    """The process that computed for an item died; another is started for the next attempt."""

    code = "worker-died"


class ScheduleNotFound(NotFound):
    """No such schedule, or it belongs to another owner."""

    code = "schedule-not-found"


class TooManySchedules(Conflict):
    """The owner has as many schedules as it may have."""

    code = "too-many-schedules"

    def __init__(self, most: int) -> None:
        super().__init__(f"You have {most} schedules, which is the most; delete one that is not needed.")


class ScheduleBusy(Conflict):
    """The schedule cannot run now beside the runs that have not ended."""

    code = "schedule-busy"


class ScheduleMoved(ServiceError):
    """The schedule has changed since the caller read it."""

    code = "precondition-failed"

    def __init__(self) -> None:
        super().__init__("The schedule has changed meanwhile; read it again and repeat the change.")
