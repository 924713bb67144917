"""Messages about schedules: requests, the event of a run, the command that refuses it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from contracts.batches import INTAKE, BatchStatus, Kind
from contracts.message import Command, Contract, Event, Moment, Next, Reply, Request
from contracts.topology import BATCH_PROCESSOR

ScheduleStatus = Literal["active", "paused"]
Overlap = Literal["skip", "queue", "allow"]
Missed = Literal["skip", "once", "all"]
Trigger = Literal["due", "catch-up", "manual"]
RunStatus = Literal["waiting", "fired", "accepted", "ended", "refused", "skipped", "missed"]

# The scopes that an access token had when it created something: they cannot be looked up once the token has
# expired. Those of an API key are looked up when they are needed, and are None here.
TokenScopes = Annotated[
    list[str] | None, Field(description="of the access token `made_by`; null for an API key")
]

MOST_TEMPLATE_BYTES = 64 * 1024
MOST_ITEMS_OF_TEMPLATE = 1000
MOST_CRON = 100
MOST_NAME = 100
MOST_TIME_ZONE = 64
MOST_JITTER_S = 3600
LEAST_CATCH_UP_WINDOW_S = 60
MOST_CATCH_UP_WINDOW_S = 31 * 86_400
MOST_NEXT_RUNS = 100
# A run that fires, and a fired run that is accepted, within so many seconds is on time.
ON_TIME_S = 60
# Both services give up a run that the gateway has not accepted by then.
GIVEN_UP_AFTER_S = 86_400


class ScheduleRun(Contract):
    """One run of a schedule. It has the id of its batch or task, whose state is `outcome`."""

    id: UUID
    schedule_id: UUID
    due_at: Moment
    trigger: Trigger
    status: RunStatus
    created_at: Moment
    fired_at: Moment | None = None
    ended_at: Moment | None = None
    outcome: BatchStatus | None = None
    code: str | None = None
    detail: str | None = None
    next: Next | None = None


class Schedule(Reply):
    """A schedule as its owner sees it; `template` is JSON text, exactly as the owner wrote it.

    `revision` counts its changes. `next_runs` are due times, without their jitter.
    """

    id: UUID
    name: str
    status: ScheduleStatus
    cron: str
    time_zone: str
    overlap: Overlap
    missed: Missed
    catch_up_window_s: int
    jitter_s: int
    kind: Kind
    operation: str
    template: str
    revision: int
    created_at: Moment
    changed_at: Moment
    paused_reason: str | None = None
    next_runs: list[Moment] = Field(default_factory=list)
    last_run: ScheduleRun | None = None
    next: Next | None = None


class CreateSchedule(Request):
    """Store a schedule of `owner_id`, created with the credential `made_by`.

    A repeated `request_key` of an owner returns the first schedule.
    """

    message_type: ClassVar[str] = "schedules.create.v1"
    reply: ClassVar[type[Reply]] = Schedule
    service: ClassVar[str] = BATCH_PROCESSOR
    schedule_id: UUID
    owner_id: str
    made_by: str
    scopes: TokenScopes = None
    request_key: str | None = None
    name: str
    cron: str
    time_zone: str
    overlap: Overlap
    missed: Missed
    catch_up_window_s: int
    jitter_s: int
    kind: Kind
    operation: str
    template: str


class ChangeSchedule(Request):
    """Change the given fields of a schedule, which then runs with the rights of `made_by`.

    It must still have the given `revision`.
    """

    message_type: ClassVar[str] = "schedules.change.v1"
    reply: ClassVar[type[Reply]] = Schedule
    service: ClassVar[str] = BATCH_PROCESSOR
    schedule_id: UUID
    owner_id: str
    made_by: str
    scopes: TokenScopes = None
    revision: int | None = None
    name: str | None = None
    cron: str | None = None
    time_zone: str | None = None
    overlap: Overlap | None = None
    missed: Missed | None = None
    catch_up_window_s: int | None = None
    jitter_s: int | None = None
    kind: Kind | None = None
    operation: str | None = None
    template: str | None = None


class PauseSchedule(Request):
    """Pause a schedule of `owner_id`, or resume it (`paused` false)."""

    message_type: ClassVar[str] = "schedules.pause.v1"
    reply: ClassVar[type[Reply]] = Schedule
    service: ClassVar[str] = BATCH_PROCESSOR
    schedule_id: UUID
    owner_id: str
    paused: bool


class DeleteSchedule(Request):
    """End a schedule; the answer is its last state. After the answer it never runs."""

    message_type: ClassVar[str] = "schedules.delete.v1"
    reply: ClassVar[type[Reply]] = Schedule
    service: ClassVar[str] = BATCH_PROCESSOR
    schedule_id: UUID
    owner_id: str
    revision: int | None = None


class GetSchedule(Request):
    """Ask for a schedule of `owner_id`, with `next_runs` due times; another owner's is not found."""

    message_type: ClassVar[str] = "schedules.get.v1"
    reply: ClassVar[type[Reply]] = Schedule
    service: ClassVar[str] = BATCH_PROCESSOR
    schedule_id: UUID
    owner_id: str
    next_runs: int = Field(default=5, ge=1, le=MOST_NEXT_RUNS)


class Schedules(Reply):
    """A page of schedules; the next one begins behind `next_cursor`."""

    data: list[Schedule]
    next_cursor: UUID | None


class ListSchedules(Request):
    """Ask for schedules of `owner_id`, newest first, those before the id `before`."""

    message_type: ClassVar[str] = "schedules.list.v1"
    reply: ClassVar[type[Reply]] = Schedules
    service: ClassVar[str] = BATCH_PROCESSOR
    owner_id: str
    status: list[ScheduleStatus] = Field(default_factory=list)
    operations: list[str] = Field(default_factory=list)
    created_after: Moment | None = None
    created_before: Moment | None = None
    before: UUID | None = None
    limit: int = Field(default=50, ge=1, le=200)


class RunReply(Reply):
    """A run that was requested."""

    run: ScheduleRun


class RunSchedule(Request):
    """Run a schedule of `owner_id` now, whatever its cron says, as `run_id`.

    A repeated `request_key` returns the first run.
    """

    message_type: ClassVar[str] = "schedules.run.v1"
    reply: ClassVar[type[Reply]] = RunReply
    service: ClassVar[str] = BATCH_PROCESSOR
    schedule_id: UUID
    owner_id: str
    run_id: UUID
    revision: int
    request_key: str | None = None


class ScheduleRuns(Reply):
    """A page of runs; the next one begins behind `next_cursor`."""

    data: list[ScheduleRun]
    next_cursor: UUID | None


class ListScheduleRuns(Request):
    """Ask for runs of a schedule of `owner_id`, newest first, those before the id `before`."""

    message_type: ClassVar[str] = "schedules.list-runs.v1"
    reply: ClassVar[type[Reply]] = ScheduleRuns
    service: ClassVar[str] = BATCH_PROCESSOR
    schedule_id: UUID
    owner_id: str
    status: list[RunStatus] = Field(default_factory=list)
    trigger: list[Trigger] = Field(default_factory=list)
    created_after: Moment | None = None
    created_before: Moment | None = None
    before: UUID | None = None
    limit: int = Field(default=50, ge=1, le=200)


class ScheduleFired(Event):
    """A schedule has fired (exchange `events`): the gateway creates its batch or task from `template`.

    `made_by` is the credential whose rights are checked when the event is handled; those of an access token
    are limited to `scopes`.
    """

    message_type: ClassVar[str] = "schedule.fired.v1"
    routing_key: ClassVar[str] = "schedule.fired"
    run_id: UUID
    schedule_id: UUID
    owner_id: str
    made_by: str
    scopes: TokenScopes = None
    due_at: Moment
    fired_at: Moment
    kind: Kind
    template: str


class RefuseRun(Command):
    """Refuse a run that has fired, because of `code` and `detail`: it creates no batch or task."""

    message_type: ClassVar[str] = "schedules.refuse-run.v1"
    queue: ClassVar[str] = INTAKE
    run_id: UUID
    owner_id: str
    code: str
    detail: str
