"""The context of an operation, without servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel

from batch_processor.operation import Context
from chassis.broker.envelope import Outgoing, command
from chassis.egress.client import HttpAnswer, HttpRequest
from contracts.message import Command, Request

R = TypeVar("R", bound=BaseModel)


T = TypeVar("T")


@dataclass
class OperationWorld:
    """The effects of an operation on the world: questions asked, requests fetched, commands sent.

    `replies` and `answers` are what came back.
    """

    replies: list[BaseModel] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    answers: list[HttpAnswer] = field(default_factory=list)
    fetched: list[HttpRequest] = field(default_factory=list)
    sent: list[tuple[Any, UUID]] = field(default_factory=list)

    def context(
        self,
        position: int = 0,
        post: Callable[[Outgoing], None] | None = None,
        payload_text: str = "{}",
    ) -> Context:
        def send(message: Command, key: UUID, *, is_bulk: bool = False) -> None:
            self.sent.append((message, key))
            if post is not None:
                post(command(message, message_id=key, is_bulk=is_bulk))

        return Context(
            batch_id=UUID(int=7),
            position=position,
            owner_id="ann",
            attempt=1,
            accepted_at=datetime(2026, 1, 2, tzinfo=UTC),
            payload_text=payload_text,
            ask=self._ask,
            compute=self._compute,
            fetch=self._fetch,
            share=self._share,
            send=send,
        )

    async def _ask(self, request: Request, reply: type[R], *, timeout_s: float) -> R:
        self.asked.append(request)
        answer = self.replies.pop(0)
        assert isinstance(answer, reply)
        return answer

    async def _fetch(self, request: HttpRequest, *, timeout_s: float) -> HttpAnswer:
        self.fetched.append(request)
        return self.answers.pop(0)

    async def _compute(self, function: Callable[..., T], *arguments: Any) -> T:
        return function(*arguments)

    async def _share(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        return await make()
