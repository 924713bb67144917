"""`/v1/schedules`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chassis.errors import Conflict, DatabaseUnavailable, Forbidden, Unavailable
from contracts import problems
from contracts.schedules import ScheduleRun
from contracts.scopes import Scope
from gateway.acceptance.inputs import EXAMPLE_ID
from gateway.errors import PreconditionFailed, PreconditionRequired, UnknownOperation
from gateway.http.endpoints import (
    Endpoint,
    Handler,
    Idempotency,
    Precondition,
    delete,
    get,
    json,
    nothing,
    patch,
    post,
)
from gateway.schedules.inputs import CHANGED_SCHEDULE, NextRuns, RunPage, SchedulePage, ScheduleView
from gateway.schedules.service import ScheduleService

_PATH = "/v1/schedules/<uuid:schedule_id>"
_ETAG = {"ETag": "the version of the schedule, for If-Match"}
_NOT_FOUND = problems.of("schedule-not-found")
_EXAMPLE = {"schedule_id": EXAMPLE_ID}
_READ: dict[str, Any] = {"tag": "Schedules", "scope": Scope.SCHEDULES_READ}
_WRITE: dict[str, Any] = {"tag": "Schedules", "scope": Scope.SCHEDULES_WRITE}
# What may be in the way of a change: the rights of its runs, and the services that are asked.
_OF_CHANGES = (Forbidden, UnknownOperation, DatabaseUnavailable, Unavailable)


def endpoints(service: ScheduleService) -> Iterator[Endpoint]:
    """Yield the endpoints of schedules."""
    yield post(
        "/v1/schedules",
        service.create,
        name="createSchedule",
        summary="Create a schedule that makes a task or a batch by cron in a time zone",
        answers={201: json(ScheduleView, headers={"Location": "the schedule", **_ETAG})},
        errors=(*_OF_CHANGES, problems.of("too-many-schedules")),
        examples={
            "a task on weekdays": {
                "name": "morning indicators",
                "cron": "30 9 * * MON-FRI",
                "time_zone": "America/New_York",
                "template": {"operation": "echo", "payload": {"report": "morning"}},
            },
            "a batch every hour": {
                "name": "hourly",
                "cron": "0 * * * *",
                "overlap": "queue",
                "missed": "all",
                "catch_up_window_s": 7200,
                "jitter_s": 60,
                "template": {"operation": "echo", "items": [1, {"custom_id": "two", "payload": 2}]},
            },
        },
        **_WRITE,
    )
    yield get(
        "/v1/schedules",
        service.list,
        name="listSchedules",
        summary="List your schedules, newest first",
        answers={200: json(SchedulePage)},
        errors=(Unavailable,),
        **_READ,
    )
    yield from _one(service)
    yield from _times(service)


def _one(service: ScheduleService) -> Iterator[Endpoint]:
    yield get(
        _PATH,
        service.get,
        name="getSchedule",
        summary="Read a schedule, its next due times and its last run",
        answers={200: json(ScheduleView, headers=_ETAG)},
        errors=(_NOT_FOUND, Unavailable),
        examples=_EXAMPLE,
        **_READ,
    )
    yield patch(
        _PATH,
        service.change,
        name="changeSchedule",
        summary="Change a schedule",
        answers={200: json(ScheduleView, headers=_ETAG, excerpt=CHANGED_SCHEDULE)},
        errors=(*_OF_CHANGES, _NOT_FOUND, PreconditionFailed, PreconditionRequired),
        precondition=Precondition.REQUIRED,
        idempotency=Idempotency.CLAIM,
        examples={**_EXAMPLE, "another time": {"cron": "0 10 * * MON-FRI"}},
        **_WRITE,
    )
    yield delete(
        _PATH,
        service.delete,
        name="deleteSchedule",
        summary="Delete a schedule; batches and tasks that it has made continue",
        answers={204: nothing()},
        errors=(DatabaseUnavailable, Unavailable, _NOT_FOUND, PreconditionFailed, PreconditionRequired),
        precondition=Precondition.REQUIRED,
        idempotency=Idempotency.CLAIM,
        examples=_EXAMPLE,
        **_WRITE,
    )
    yield _action("pause", service.pause, "pauseSchedule", "Pause a schedule until it is resumed")
    yield _action("resume", service.resume, "resumeSchedule", "Resume a paused schedule")
    yield post(
        f"{_PATH}/run",
        service.run,
        name="runSchedule",
        summary="Run a schedule now, whatever its cron says",
        answers={
            202: json(ScheduleRun, headers={"Location": "the task or batch that it makes, once it exists"})
        },
        errors=(*_OF_CHANGES, _NOT_FOUND, Conflict, problems.of("schedule-busy")),
        examples=_EXAMPLE,
        **_WRITE,
    )


def _action(path: str, handler: Handler, name: str, summary: str) -> Endpoint:
    return post(
        f"{_PATH}/{path}",
        handler,
        name=name,
        summary=summary,
        answers={200: json(ScheduleView, headers=_ETAG, excerpt=CHANGED_SCHEDULE)},
        errors=(*_OF_CHANGES, _NOT_FOUND),
        examples=_EXAMPLE,
        **_WRITE,
    )


def _times(service: ScheduleService) -> Iterator[Endpoint]:
    yield get(
        f"{_PATH}/runs",
        service.runs,
        name="listScheduleRuns",
        summary="List the runs of a schedule, newest first",
        answers={200: json(RunPage)},
        errors=(_NOT_FOUND, Unavailable),
        examples=_EXAMPLE,
        **_READ,
    )
    yield get(
        f"{_PATH}/next-runs",
        service.next_runs,
        name="listNextRuns",
        summary="List the next due times of a schedule",
        answers={200: json(NextRuns)},
        errors=(_NOT_FOUND, Unavailable),
        examples=_EXAMPLE,
        **_READ,
    )
