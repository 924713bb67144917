"""The message edge: the tables of messages and requests and their handlers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from batch_processor.backups.answers import BackupAnswers
from batch_processor.intake.handlers import Intake
from batch_processor.pauses.answers import PauseAnswers
from batch_processor.reading.answers import BatchAnswers
from batch_processor.schedules.answers import ScheduleAnswers
from batch_processor.schedules.firing import ScheduleFiring
from chassis.broker.answering import Answer
from chassis.broker.handlers import Handler, InTransaction
from contracts.backups import GetBackup, RequestBackup
from contracts.batch_items import ListErrors, ListItems
from contracts.batches import (
    AbandonBatch,
    AppendItems,
    CancelBatch,
    CountBatches,
    CreateBatch,
    GetBatch,
    LimitOwner,
    ListBatches,
    ListResults,
    MoveBatch,
    PauseBatch,
    ResumeBatch,
    RetryBatch,
    SealBatch,
)
from contracts.message import Message, Request
from contracts.pauses import ListPauses, PauseWork, ResumeWork
from contracts.schedules import (
    ChangeSchedule,
    CreateSchedule,
    DeleteSchedule,
    GetSchedule,
    ListScheduleRuns,
    ListSchedules,
    PauseSchedule,
    RefuseRun,
    RunSchedule,
)


def intake(
    intake: Intake, firing: ScheduleFiring, *, committed: Callable[[], None]
) -> Mapping[type[Message], Handler]:
    """Return the handlers of the intake queue; `committed` is called when chunks may be ready."""
    return {
        CreateBatch: InTransaction(intake.create, group=50, committed=committed),
        AppendItems: InTransaction(intake.append, group=8, committed=committed),
        SealBatch: InTransaction(intake.seal, group=20, committed=committed),
        AbandonBatch: InTransaction(intake.abandon, group=20, committed=committed),
        CancelBatch: InTransaction(intake.cancel, group=20, committed=committed),
        PauseBatch: InTransaction(intake.pause, group=20, committed=committed),
        ResumeBatch: InTransaction(intake.resume, group=20, committed=committed),
        RetryBatch: InTransaction(intake.retry, group=20, committed=committed),
        MoveBatch: InTransaction(intake.move, group=20, committed=committed),
        LimitOwner: InTransaction(intake.limit, committed=committed),
        RefuseRun: InTransaction(firing.refuse, group=50),
    }


def answers(
    answers: BatchAnswers, schedules: ScheduleAnswers, pauses: PauseAnswers, backups: BackupAnswers
) -> Mapping[type[Request], Answer]:
    """Return the handlers of requests."""
    return {
        GetBatch: answers.get,
        ListBatches: answers.list,
        ListResults: answers.results,
        ListItems: answers.items,
        ListErrors: answers.errors,
        CountBatches: answers.count,
        CreateSchedule: schedules.create,
        GetSchedule: schedules.get,
        ListSchedules: schedules.list,
        ChangeSchedule: schedules.change,
        PauseSchedule: schedules.pause,
        DeleteSchedule: schedules.delete,
        RunSchedule: schedules.run,
        ListScheduleRuns: schedules.runs,
        ListPauses: pauses.list,
        PauseWork: pauses.pause,
        ResumeWork: pauses.resume,
        RequestBackup: backups.request,
        GetBackup: backups.get,
    }
