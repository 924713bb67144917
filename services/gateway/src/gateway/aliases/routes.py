"""The short routes: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from chassis.errors import DatabaseUnavailable, NotFound, Overloaded, PayloadTooLarge, Unavailable
from contracts.scopes import Scope
from gateway.aliases import service as short
from gateway.aliases.inputs import Taken
from gateway.aliases.service import AliasService
from gateway.errors import IdempotencyConflict, IdempotencyMismatch, UnknownOperation
from gateway.http.endpoints import AfterRepeat, Endpoint, Idempotency, get, json, post
from gateway.http.rates import RateClass
from gateway.stocks.routes import OF_A_QUOTE, OF_A_SYMBOL
from gateway.stocks.service import StockService

_accept = partial(
    post,
    tag="Short routes",
    answers={202: json(Taken, headers={"Location": "the path of its state"})},
    errors=(
        Overloaded, DatabaseUnavailable, IdempotencyConflict, IdempotencyMismatch, PayloadTooLarge,
        UnknownOperation,
    ),
    idempotency=Idempotency.ACCEPTANCE,
    is_alias=True,
)  # fmt: skip


def _again(message: str) -> AfterRepeat:
    return lambda _, reply: short.taken(message, reply)


def endpoints(service: AliasService, stocks: StockService) -> Iterator[Endpoint]:
    """Yield the short routes."""
    yield get(
        "/stock/<symbol>",
        stocks.get,
        name="getQuoteShort",
        summary="Read the newest quote of a symbol",
        tag="Short routes",
        scope=Scope.QUOTES_READ,
        answers=OF_A_QUOTE,
        errors=(NotFound, Unavailable, *OF_A_SYMBOL),
        cache="private, max-age=1",
        rate=RateClass.QUOTE,
        is_alias=True,
    )
    yield from _accepting(service)


def _accepting(service: AliasService) -> Iterator[Endpoint]:
    yield _accept(
        "/send-email",
        service.send_email,
        after_repeat=_again(short.MAIL_ACCEPTED),
        name="sendEmailShort",
        summary="Accept a mail with a plain text",
        scope=Scope.EMAILS_SEND,
        rate=RateClass.SEND,
        cost=lambda mail: len(mail.to),
        examples={"a mail": {"to": "ann@example.com", "subject": "Hello", "body": "It works."}},
    )
    yield _accept(
        "/process-batch",
        service.process_batch,
        after_repeat=_again(short.BATCH_STARTED),
        name="processBatchShort",
        summary="Accept a batch whose items are returned unchanged",
        scope=Scope.BATCHES_WRITE,
        rate=RateClass.BATCH,
        examples={"two items": {"batches": [1, 2]}},
    )
    yield _accept(
        "/process-data",
        service.process_data,
        after_repeat=_again(short.DATA_STARTED),
        name="processDataShort",
        summary="Accept a batch whose items are returned unchanged",
        scope=Scope.BATCHES_WRITE,
        rate=RateClass.BATCH,
        examples={"two items": {"items": [1, 2]}},
    )
    yield _accept(
        "/enqueue-task",
        service.enqueue_task,
        after_repeat=_again(short.TASK_ENQUEUED),
        name="enqueueTaskShort",
        summary="Accept any JSON as a task that returns it unchanged",
        scope=Scope.BATCHES_WRITE,
        examples={"a task": {"greeting": "hello"}},
    )
