"""The inputs and answers of schedules."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contracts.batch_options import BatchOptions
from contracts.batches import Kind
from contracts.items import OperationName
from contracts.message import Moment, Next
from contracts.schedules import (
    LEAST_CATCH_UP_WINDOW_S,
    MOST_CATCH_UP_WINDOW_S,
    MOST_CRON,
    MOST_ITEMS_OF_TEMPLATE,
    MOST_JITTER_S,
    MOST_NAME,
    MOST_NEXT_RUNS,
    MOST_TIME_ZONE,
    Missed,
    Overlap,
    RunStatus,
    ScheduleRun,
    ScheduleStatus,
    Trigger,
)
from contracts.scopes import Scope
from gateway.batches.inputs import BatchInput, FollowUpInput, TaskInput
from gateway.http.changes import Change
from gateway.http.excerpts import Excerpt
from gateway.http.filters import CreatedWithin, Filter, PageQuery, Several

# Each run adds two names to the metadata of the owner.
_MOST_METADATA = 18
_OWN_METADATA = ("schedule_id", "due_at")

Name = Annotated[str, Field(min_length=1, max_length=MOST_NAME, pattern=r"^[^\x00-\x1f\x7f]+$")]
Cron = Annotated[
    str,
    Field(
        max_length=MOST_CRON,
        description="five fields: minute hour day-of-month month day-of-week",
        examples=["30 9 * * MON-FRI"],
    ),
]
TimeZone = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MOST_TIME_ZONE,
        description="a name of the IANA database",
        examples=["Europe/Berlin"],
    ),
]
Window = Annotated[
    int,
    Field(
        ge=LEAST_CATCH_UP_WINDOW_S,
        le=MOST_CATCH_UP_WINDOW_S,
        description="missed due times older than this are not caught up",
    ),
]
Jitter = Annotated[
    int,
    Field(
        ge=0,
        le=MOST_JITTER_S,
        description="the most seconds by which a run is delayed at random, always before the next due time",
    ),
]


class TemplateInput(BaseModel):
    """The template of each run: a task with one `payload`, or a batch of `items`.

    Its metadata also get `schedule_id` and `due_at`. Items that have not ended `expires_in_s` seconds after
    the start of the run are stopped, and the batch or task is `expired`.
    """

    model_config = ConfigDict(extra="forbid")
    operation: OperationName
    payload: Any = None
    items: list[Any] = Field(default_factory=list, min_length=1, max_length=MOST_ITEMS_OF_TEMPLATE)
    options: BatchOptions = Field(default=BatchOptions(), description="of a batch")
    priority: int = Field(default=5, ge=0, le=9, description="of a task")
    metadata: dict[
        Annotated[str, Field(min_length=1, max_length=40)], Annotated[str, Field(max_length=500)]
    ] = Field(default_factory=dict, max_length=_MOST_METADATA, examples=[{"report": "weekly"}])
    expires_in_s: float | None = Field(default=None, gt=0, le=30 * 86_400)
    on_finished: FollowUpInput | None = None

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        of_a_batch, of_a_task = {"items", "options"}, {"payload", "priority"}
        if self.model_fields_set & of_a_batch and self.model_fields_set & of_a_task:
            raise ValueError("give items and options for a batch, or payload and priority for a task")
        if "options" in self.model_fields_set and not self.items:
            raise ValueError("options are those of a batch: give its items")
        if taken := set(_OWN_METADATA) & self.metadata.keys():
            raise ValueError(f"each run sets its own {' and '.join(sorted(taken))}; omit them")
        if self.items:
            # Its items must also be valid as those of a batch.
            BatchInput(operation=self.operation, items=self.items)
        return self

    @property
    def kind(self) -> Kind:
        """The kind of work that a run creates."""
        return "batch" if self.items else "task"

    def payloads(self) -> Iterable[tuple[str, Any]]:
        """Return the payloads, each with its JSON pointer in the template."""
        if not self.items:
            return [("/payload", self.payload)]
        return BatchInput(operation=self.operation, items=self.items).payloads("items")

    def batch(self, *, metadata: dict[str, str], begun_at: datetime) -> BatchInput:
        """Return the batch of a run that starts at `begun_at`."""
        return BatchInput(
            operation=self.operation,
            items=self.items,
            options=self.options,
            metadata=self.metadata | metadata,
            expires_at=self._expires_at(begun_at),
            on_finished=self.on_finished,
        )

    def task(self, *, metadata: dict[str, str], begun_at: datetime) -> TaskInput:
        """Return the task of a run that starts at `begun_at`."""
        return TaskInput(
            operation=self.operation,
            payload=self.payload,
            priority=self.priority,
            metadata=self.metadata | metadata,
            expires_at=self._expires_at(begun_at),
            on_finished=self.on_finished,
        )

    def _expires_at(self, begun_at: datetime) -> datetime | None:
        return None if self.expires_in_s is None else begun_at + timedelta(seconds=self.expires_in_s)


class ScheduleInput(BaseModel):
    """The body of `POST /v1/schedules`.

    `overlap` defines what happens at a due time while the previous run has not ended: the due time is
    skipped, waits in a queue, or runs at the same time. `missed` defines which missed due times are run
    later: none, the last one `once`, or `all` (at most the newest 100).
    """

    model_config = ConfigDict(extra="forbid")
    name: Name
    cron: Cron
    time_zone: TimeZone = "UTC"
    template: TemplateInput
    overlap: Overlap = "skip"
    missed: Missed = "once"
    catch_up_window_s: Window = 86_400
    jitter_s: Jitter = 0


class ScheduleChange(Change):
    """The body of `PATCH /v1/schedules/{id}`: the given fields are changed, the template as a whole.

    The schedule runs with the rights of the key that changes it from then on.
    """

    thing = "schedule"
    name: Name | None = None
    cron: Cron | None = None
    time_zone: TimeZone | None = None
    template: TemplateInput | None = None
    overlap: Overlap | None = None
    missed: Missed | None = None
    catch_up_window_s: Window | None = None
    jitter_s: Jitter | None = None


class ScheduleView(BaseModel):
    """A schedule. `next_runs` are its next due times, in UTC and without jitter; none while it is paused.

    Its `ETag` identifies this answer, but `If-Match` compares only the fields that requests change, so that
    an intermediate run does not count as a change.
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
    created_at: Moment
    changed_at: Moment
    paused_reason: str | None
    next_runs: list[Moment]
    last_run: ScheduleRun | None
    next: Next | None
    template: TemplateInput


class ScheduleOutline(BaseModel):
    """A schedule that was changed, for a key without `schedules:read`."""

    id: UUID
    status: ScheduleStatus
    changed_at: Moment
    next: Next | None


CHANGED_SCHEDULE = Excerpt(Scope.SCHEDULES_READ, ScheduleOutline)


class SchedulesQuery(CreatedWithin, PageQuery):
    """The query of `GET /v1/schedules`: newest first; the cursor is the last id seen."""

    status: Several[ScheduleStatus] | None = None
    operation: Several[OperationName] | None = Field(default=None, examples=["echo"])
    cursor: UUID | None = Field(default=None, description="`next_cursor` of the page before")  # type: ignore[assignment]  # an id, not any text


class SchedulePage(BaseModel):
    """A page of schedules, newest first, each with its next due time only."""

    data: list[ScheduleView]
    next_cursor: UUID | None


class RunsQuery(CreatedWithin, PageQuery):
    """The query of `GET /v1/schedules/{id}/runs`: newest first; the cursor is the last id seen."""

    status: Several[RunStatus] | None = None
    trigger: Several[Trigger] | None = None
    cursor: UUID | None = Field(default=None, description="`next_cursor` of the page before")  # type: ignore[assignment]  # an id, not any text


class RunPage(BaseModel):
    """A page of runs, newest first. The batch or task of a run has the id of the run."""

    data: list[ScheduleRun]
    next_cursor: UUID | None


class NextRunsQuery(Filter):
    """The query of `GET /v1/schedules/{id}/next-runs`."""

    limit: int = Field(default=10, ge=1, le=MOST_NEXT_RUNS)


class NextRuns(BaseModel):
    """The next due times of a schedule, in UTC and without jitter, within the next five years."""

    data: list[Moment]
    next_cursor: None = None
