"""Operations of the HTTP API that are called over a socket: their parameters come as one object."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict

from chassis.errors import InvalidInput
from contracts.scopes import Scope
from gateway.http.calls import Call
from gateway.http.endpoints import get, json
from gateway.http.principal import Principal
from gateway.realtime.codes import CommandError
from gateway.realtime.operations import ReadingOperations

ANN = Principal(7, "Ann", "member", "k7", frozenset({Scope.QUOTES_READ}))


class Query(BaseModel):
    model_config = ConfigDict(extra="forbid")
    symbols: Annotated[list[str], BeforeValidator(lambda text: text.split(","))]
    limit: int = 5


class Echo(BaseModel):
    room: str
    symbols: list[str]
    limit: int


async def echo(_: Call, room: str, query: Query) -> Echo:
    return Echo(room=room, symbols=query.symbols, limit=query.limit)


@pytest.fixture
def operations() -> ReadingOperations:
    made = ReadingOperations(timeout_s=5)
    made.offer(
        [
            get(
                "/v1/rooms/<room>/echo",
                echo,
                name="echo",
                summary="Echo",
                tag="Test",
                scope=Scope.QUOTES_READ,
                answers={200: json(Echo)},
            )
        ]
    )
    return made


@pytest.mark.parametrize("symbols", ["AAPL,IBM", ["AAPL", "IBM"]])
@pytest.mark.parametrize("limit", ["3", 3])
async def test_parameters_are_taken_as_in_a_query_or_as_json(
    operations: ReadingOperations, symbols: Any, limit: Any
) -> None:
    given = {"room": "lobby", "symbols": symbols, "limit": limit}
    assert await operations.call(ANN, "echo", given) == {
        "room": "lobby",
        "symbols": ["AAPL", "IBM"],
        "limit": 3,
    }


@pytest.mark.parametrize(
    "given", [{"symbols": "A"}, {"room": "a", "symbols": "A", "limit": True}, {"room": "a", "moon": 1}]
)
async def test_parameters_that_do_not_fit_are_refused(
    operations: ReadingOperations, given: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        await operations.call(ANN, "echo", given)


async def test_an_operation_that_is_not_offered_is_not_found(operations: ReadingOperations) -> None:
    with pytest.raises(CommandError, match="There is no read-only operation 'sendEmail'"):
        await operations.call(ANN, "sendEmail", {})
