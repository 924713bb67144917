"""Endpoints of every kind, whose handlers need no servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from chassis import shares
from contracts.scopes import Scope
from gateway.http.calls import Call
from gateway.http.endpoints import (
    CONTENT_TAG,
    Endpoint,
    Precondition,
    events,
    get,
    json,
    lines,
    patch,
    post,
)
from gateway.http.replies import EVENT_STREAM, NDJSON, HttpReply

DECLARED: dict[str, Any] = {"summary": "Do", "tag": "T", "scope": Scope.QUOTES_READ}


class ServedThing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1)
    size: int = Field(default=1, ge=1, le=10)
    at: datetime | None = None


class ServedThingQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1)
    size: int = Field(default=1, ge=1, le=10)


async def create(_: Call, body: ServedThing) -> dict[str, Any]:
    return body.model_dump()


async def search(_: Call, query: ServedThingQuery) -> dict[str, Any]:
    return query.model_dump()


async def find(_: Call, thing_id: UUID, part: Annotated[str, Field(max_length=3)]) -> dict[str, Any]:
    return {"id": thing_id, "part": part}


async def nothing(_: Call) -> dict[str, Any]:
    return {}


async def share(_: Call) -> dict[str, Any]:
    return {"share": shares.current.get()}


async def change(call: Call, body: ServedThing) -> HttpReply:
    call.require_match('"2"')
    return HttpReply(body.name.encode(), etag='"3"')


async def tagged(_: Call) -> HttpReply:
    return HttpReply(b"{}\n", etag='"a"')


async def rows(call: Call) -> HttpReply:
    async def each() -> AsyncIterator[bytes]:
        yield b"1\n"
        await asyncio.sleep(0)
        yield b"2\n"

    return HttpReply(each(), media_type=NDJSON) if call.media_type == NDJSON else HttpReply(b"[1,2]\n")


async def stream(_: Call) -> HttpReply:
    async def each() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"

    return HttpReply(each(), media_type=EVENT_STREAM)


async def sleep(_: Call) -> None:
    await asyncio.sleep(60)


def endpoints() -> list[Endpoint]:
    return [
        post("/things", create, name="create", answers={201: json(ServedThing)}, **DECLARED),
        get(
            "/things",
            search,
            name="search",
            answers={200: json(ServedThing, headers=CONTENT_TAG)},
            **DECLARED,
        ),
        get("/things/<uuid:thing_id>/<part>", find, name="find", answers={200: json()}, **DECLARED),
        patch(
            "/thing",
            change,
            name="change",
            answers={200: json()},
            precondition=Precondition.REQUIRED,
            **DECLARED,
        ),
        get("/secrets", nothing, name="secrets", answers={200: json()}, **{**DECLARED, "scope": Scope.ADMIN}),
        get(
            "/open",
            nothing,
            name="open",
            answers={200: json()},
            is_public=True,
            **{**DECLARED, "scope": None},
        ),
        get("/share", share, name="share", answers={200: json()}, **DECLARED),
        get(
            "/share/of-nobody",
            share,
            name="shareOfNobody",
            answers={200: json()},
            is_public=True,
            **{**DECLARED, "scope": None},
        ),
        get(
            "/tagged",
            tagged,
            name="tagged",
            answers={200: json(headers={"ETag": "the version"})},
            cache="private",
            **DECLARED,
        ),
        get("/rows", rows, name="rows", answers={200: lines(None, item=int)}, **DECLARED),
        get("/stream", stream, name="stream", answers={200: events(item=int)}, **DECLARED),
        get("/sleep", sleep, name="sleep", answers={200: json()}, **DECLARED),
    ]
