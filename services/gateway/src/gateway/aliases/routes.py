"""Short routes: thin aliases onto `/v1`, with the same authentication, for people who know the tutorials."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, RootModel
from quart import Response, request

from contracts.mail import Body, Mail, Recipients, Subject
from gateway.acceptance import idempotency
from gateway.acceptance.acceptor import Accepted
from gateway.batches.inputs import BatchInput, TaskInput
from gateway.batches.routes import BatchService
from gateway.emails.routes import EmailService
from gateway.http.endpoint import (
    JSON,
    Api,
    answer,
    build,
    offload_if_large,
    parse,
    read_body,
    require_media_type,
)
from gateway.http.principal import Principal
from gateway.identity.routes import UserService
from gateway.stocks.routes import quote_answer
from gateway.stocks.service import StockService


class MailInput(BaseModel):
    """The body of `POST /send-email`: a mail of plain text. `to` is one address or a list."""

    model_config = ConfigDict(extra="forbid")
    to: Recipients
    subject: Subject = ""
    body: Body


class BatchesInput(BaseModel):
    """The body of `POST /process-batch`: each element becomes an item."""

    model_config = ConfigDict(extra="forbid")
    batches: list[Any] = Field(min_length=1, max_length=100_000)


class DataInput(BaseModel):
    """The body of `POST /process-data`."""

    model_config = ConfigDict(extra="forbid")
    items: list[Any] = Field(min_length=1, max_length=100_000)


class AnyInput(RootModel[Any]):
    """The body of `POST /enqueue-task`: any JSON."""


def register(
    api: Api, *, stocks: StockService, emails: EmailService, batches: BatchService, users: UserService
) -> None:
    """Serve the routes."""

    @api.route("/stock/<symbol>", scope="quotes:read")
    async def stock(_: Principal, symbol: str) -> Response:
        return await quote_answer(api, stocks, symbol)

    @api.route("/user/<int:user_id>", scope=None)
    async def user(principal: Principal, user_id: int) -> Response:
        return answer(await users.get(principal, user_id))

    @api.route("/send-email", methods=("POST",), scope="emails:send")
    async def send_email(principal: Principal) -> Response:
        body, key = await _read("/send-email")
        wanted = parse(MailInput, body)
        mail = build(Mail, to=wanted.to, subject=wanted.subject, text=wanted.body)
        async with api.within_deadline():
            return _taken("Email accepted", await emails.accept(principal, mail, key))

    @api.route("/process-batch", methods=("POST",), scope="batches:write")
    async def process_batch(principal: Principal) -> Response:
        body, key = await _read("/process-batch")
        batch = await offload_if_large(lambda data: _echo(parse(BatchesInput, data).batches), body)
        async with api.within_deadline():
            return _taken("Batch processing started", await batches.accept(principal, batch, key))

    @api.route("/process-data", methods=("POST",), scope="batches:write")
    async def process_data(principal: Principal) -> Response:
        body, key = await _read("/process-data")
        batch = await offload_if_large(lambda data: _echo(parse(DataInput, data).items), body)
        async with api.within_deadline():
            return _taken("Data processing started", await batches.accept(principal, batch, key))

    @api.route("/enqueue-task", methods=("POST",), scope="batches:write")
    async def enqueue_task(principal: Principal) -> Response:
        body, key = await _read("/enqueue-task")
        task = TaskInput(operation="echo", payload=parse(AnyInput, body).root)
        async with api.within_deadline():
            return _taken("Task enqueued", await batches.accept_task(principal, task, key))


def _echo(items: list[Any]) -> BatchInput:
    return build(BatchInput, operation="echo", items=items)


async def _read(path: str) -> tuple[bytes, idempotency.IdempotencyKey | None]:
    require_media_type(JSON)
    body = await read_body()
    return body, idempotency.read(request.headers.get("idempotency-key"), f"POST {path}", body)


def _taken(message: str, accepted: Accepted) -> Response:
    document = {"message": message, "id": orjson.loads(accepted.body)["id"]}
    headers = {"location": accepted.location}
    if accepted.is_replay:
        headers["idempotent-replayed"] = "true"
    return answer(document, 202, headers)
