"""Operations of the HTTP API that are called over a socket: their parameters come as one object."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
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


class ReadQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    symbols: Annotated[list[str], BeforeValidator(lambda text: text.split(","))]
    limit: int = 5


class Echo(BaseModel):
    room: str
    symbols: list[str]
    limit: int


async def stored(_: Call) -> bytes:
    return b'{\n "metadata": {"rate": 1.10,\r\n "note": "a\\nb"}}\n'


async def numbered(_: Call, number: int) -> Echo:
    return Echo(room="", symbols=[], limit=number)


async def echo(_: Call, room: str, query: ReadQuery) -> Echo:
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
            ),
            get(
                "/v1/numbers/<int:number>",
                numbered,
                name="numbered",
                summary="Numbered",
                tag="Test",
                scope=None,
                answers={200: json(Echo)},
            ),
            get(
                "/v1/stored",
                stored,
                name="stored",
                summary="Stored",
                tag="Test",
                scope=None,
                answers={200: json(Echo)},
            ),
        ]
    )
    return made


@pytest.mark.parametrize("symbols", ["AAPL,IBM", ["AAPL", "IBM"]])
@pytest.mark.parametrize("limit", ["3", 3])
async def test_parameters_are_taken_as_in_a_query_or_as_json(
    operations: ReadingOperations, symbols: Any, limit: Any
) -> None:
    given = {"room": "lobby", "symbols": symbols, "limit": limit}
    answer = orjson.loads(orjson.dumps(await operations.call(ANN, "echo", given)))
    assert answer == {"room": "lobby", "symbols": ["AAPL", "IBM"], "limit": 3}


async def test_an_answer_is_passed_on_as_it_is_written_in_one_line(operations: ReadingOperations) -> None:
    reply = orjson.dumps({"id": 1, "rpc": {"data": await operations.call(ANN, "stored", None)}})
    assert b"1.10" in reply
    assert b"\n" not in reply
    data = orjson.loads(reply)["rpc"]["data"]
    assert data == {"metadata": {"rate": 1.1, "note": "a\nb"}}


@pytest.mark.parametrize(
    "given",
    [
        {"symbols": "A"},
        {"room": "a", "symbols": "A", "limit": True},
        {"room": "a", "symbols": "A", "limit": "1_0"},
        {"room": "a", "symbols": "A", "limit": 3.0},
        {"room": "a", "symbols": "A\0"},
        {"room": "a", "moon": 1},
        {"number": "1_0"},
        {"number": 1.0},
    ],
)
async def test_parameters_that_do_not_fit_are_refused(
    operations: ReadingOperations, given: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        await operations.call(ANN, "numbered" if "number" in given else "echo", given)


async def test_an_operation_that_is_not_offered_is_not_found(operations: ReadingOperations) -> None:
    with pytest.raises(CommandError, match="There is no read-only operation 'sendEmail'"):
        await operations.call(ANN, "sendEmail", {})
