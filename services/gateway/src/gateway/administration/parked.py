"""`/v1/admin/parked`: messages that no service could handle, and what is to become of them."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from quart import Response

from chassis import logging
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import NotFound, ServiceError
from chassis.parked import Parked
from contracts.parked import (
    DiscardParked,
    InspectParked,
    ListParked,
    ParkedDecided,
    ParkedDetail,
    ParkedFilter,
    ParkedPage,
    ParkedState,
    ReplayParked,
)
from contracts.topology import GATEWAY, SERVICES
from gateway.http.endpoint import Api, answer, read_json, read_query
from gateway.http.principal import Principal

log = logging.get(__name__)

Service = Literal["gateway", "stock-data", "email", "batch-processor"]


class ParkedQuery(BaseModel):
    """The query of `GET /v1/admin/parked`; pages follow each other within one service."""

    model_config = ConfigDict(extra="forbid")
    service: Service | None = None
    state: ParkedState = "parked"
    queue: str | None = Field(default=None, max_length=255)
    type: str | None = Field(default=None, max_length=255)
    reason: str | None = Field(default=None, max_length=255)
    limit: int = Field(default=50, ge=1, le=200)
    cursor: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _cursor_needs_a_service(self) -> ParkedQuery:
        if self.cursor and self.service is None:
            raise ValueError("a cursor belongs to one service: name it")
        return self

    def request(self) -> ListParked:
        """The question for one service."""
        wanted = ParkedFilter(queue=self.queue, message_type=self.type, reason=self.reason)
        return ListParked(state=self.state, wanted=wanted, limit=self.limit, after=self.cursor)


class ChoiceInput(BaseModel):
    """Which messages of a service: some ids, or all that fit."""

    model_config = ConfigDict(extra="forbid")
    service: Service
    ids: list[int] = Field(default_factory=list, max_length=10_000)
    queue: str | None = Field(default=None, max_length=255)
    type: str | None = Field(default=None, max_length=255)
    reason: str | None = Field(default=None, max_length=255)

    @model_validator(mode="after")
    def _something_is_chosen(self) -> ChoiceInput:
        if self.wanted().is_empty:
            raise ValueError("say which messages: ids, queue, type or reason")
        return self

    def wanted(self) -> ParkedFilter:
        """The choice as the contract has it."""
        return ParkedFilter(ids=self.ids, queue=self.queue, message_type=self.type, reason=self.reason)


class ReplayInput(ChoiceInput):
    """The body of `POST /v1/admin/parked/replay`."""

    rate_per_s: float = Field(default=50, gt=0, le=1000)


class ParkedService:
    """Asks each service for its own parked messages; the gateway's are at hand."""

    def __init__(self, own: Parked, rpc: RpcClient) -> None:
        self._own = own
        self._rpc = rpc

    async def page(self, service: str, request: ListParked, deadline: Deadline) -> ParkedPage:
        """A page of one service's messages."""
        if service == GATEWAY:
            return await self._own.page(request, deadline)
        return await self._rpc.call(request, ParkedPage, deadline, service=service)

    async def inspect(self, service: str, request: InspectParked, deadline: Deadline) -> ParkedDetail:
        """One message whole."""
        if service == GATEWAY:
            return await self._own.inspect(request, deadline)
        return await self._rpc.call(request, ParkedDetail, deadline, service=service)

    async def replay(self, service: str, request: ReplayParked, deadline: Deadline) -> ParkedDecided:
        """Send messages again."""
        if service == GATEWAY:
            return await self._own.replay(request, deadline)
        return await self._rpc.call(request, ParkedDecided, deadline, service=service)

    async def discard(self, service: str, request: DiscardParked, deadline: Deadline) -> ParkedDecided:
        """Give messages up."""
        if service == GATEWAY:
            return await self._own.discard(request, deadline)
        return await self._rpc.call(request, ParkedDecided, deadline, service=service)

    async def everywhere(self, request: ListParked, deadline: Deadline) -> dict[str, Any]:
        """The first messages of every service; a service that does not answer is named."""
        pages = await asyncio.gather(
            *(self.page(service, request, deadline) for service in SERVICES), return_exceptions=True
        )
        data: list[dict[str, Any]] = []
        errors = []
        for service, page in zip(SERVICES, pages, strict=True):
            if isinstance(page, ServiceError):
                errors.append({"service": service, "code": page.code, "detail": page.detail})
            elif isinstance(page, BaseException):
                raise page
            else:
                data += _rows(service, page)
        return {"data": data, "next_cursor": None, "errors": errors}


def register(api: Api, parked: ParkedService) -> None:
    """Serve the routes."""

    @api.route("/v1/admin/parked", scope="admin")
    async def list_parked(_: Principal) -> Response:
        query = read_query(ParkedQuery)
        if query.service is None:
            return answer(await parked.everywhere(query.request(), api.deadline()))
        page = await parked.page(query.service, query.request(), api.deadline())
        following = None if page.next_after is None else str(page.next_after)
        return answer({"data": _rows(query.service, page), "next_cursor": following})

    @api.route("/v1/admin/parked/<service>/<int:number>", scope="admin")
    async def inspect_parked(_: Principal, service: str, number: int) -> Response:
        if service not in SERVICES or number >= 2**63:
            raise NotFound(f"There is no parked message {service}/{number}.")
        detail = await parked.inspect(service, InspectParked(id=number), api.deadline())
        document = detail.model_dump(mode="json")
        return answer({"service": service, **document.pop("message"), **document})

    @api.route("/v1/admin/parked/replay", methods=("POST",), scope="admin")
    async def replay_parked(principal: Principal) -> Response:
        wanted = await read_json(ReplayInput)
        request = ReplayParked(wanted=wanted.wanted(), rate_per_s=wanted.rate_per_s, actor=_actor(principal))
        decided = await parked.replay(wanted.service, request, api.deadline())
        return answer({"replayed": decided.count, "skipped": decided.skipped}, 202)

    @api.route("/v1/admin/parked/discard", methods=("POST",), scope="admin")
    async def discard_parked(principal: Principal) -> Response:
        wanted = await read_json(ChoiceInput)
        request = DiscardParked(wanted=wanted.wanted(), actor=_actor(principal))
        decided = await parked.discard(wanted.service, request, api.deadline())
        return answer({"discarded": decided.count})


def _actor(principal: Principal) -> str:
    return f"{principal.user_name} (user {principal.user_id}, key {principal.key_id})"


def _rows(service: str, page: ParkedPage) -> list[dict[str, Any]]:
    return [{"service": service, **message.model_dump(mode="json")} for message in page.data]
