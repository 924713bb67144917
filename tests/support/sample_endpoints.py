"""Declared endpoints of every kind, for tests of the documents that are made from declarations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from chassis.errors import Conflict
from contracts.scopes import Scope
from gateway.http import endpoints
from gateway.http.calls import Call, Upload
from gateway.http.endpoints import Endpoint, Idempotency, Precondition
from gateway.http.replies import NDJSON, HttpReply

THING_ID = "0197b1f0-5a1c-7c3e-9f0e-2f5b1c9d7a11"


class ThingPart(BaseModel):
    """A part of a thing."""

    model_config = ConfigDict(extra="forbid")
    weight_g: float = Field(gt=0, examples=[12.5])


class ThingInput(BaseModel):
    """What a thing
    is made of."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=20)
    parts: list[ThingPart] = Field(default_factory=list)


class Thing(ThingInput):
    """A thing as it is kept."""

    id: UUID


class Things(BaseModel):
    """A page of things."""

    data: list[Thing]
    next_cursor: str | None = None


class ThingQuery(BaseModel):
    """The query of a list."""

    model_config = ConfigDict(extra="forbid")
    name: str | None = Field(default=None, description="Only things of this name.", examples=["cup"])
    limit: int = Field(default=50, ge=1, le=200)
    format: Literal["json", "ndjson", "csv"] | None = None


async def create(call: Call, body: ThingInput) -> Thing:
    return Thing(id=UUID(THING_ID), name=body.name, parts=body.parts)


async def upload(call: Call, body: list[ThingInput] | Upload) -> Things:
    return Things(data=[])


async def listed(call: Call, query: ThingQuery) -> Things:
    return Things(data=[])


async def read(call: Call, thing_id: UUID) -> HttpReply:
    return HttpReply(b"{}", etag='"1"')


async def rename(call: Call, thing_id: UUID, body: ThingInput) -> Thing:
    return Thing(id=thing_id, name=body.name)


async def end(call: Call, number: Annotated[int, Field(description="The number of a slot.")]) -> None:
    return None


async def watch(call: Call, thing_id: UUID) -> HttpReply:
    async def none() -> AsyncIterator[bytes]:
        yield b""

    return HttpReply(none())


async def ping(call: Call) -> dict[str, str]:
    return {"status": "ok"}


def declared() -> list[Endpoint]:
    return [*made_and_read(), *changed_and_watched()]


def made_and_read() -> list[Endpoint]:
    return [
        endpoints.post(
            "/things",
            create,
            name="createThing",
            summary="Make a thing",
            tag="Things",
            scope=Scope.CHAT_WRITE,
            answers={201: endpoints.json(Thing, headers={"Location": "The thing."})},
            errors=(Conflict,),
            examples={"a cup": {"name": "cup", "parts": [{"weight_g": 100.5}]}},
        ),
        endpoints.post(
            "/things/upload",
            upload,
            name="uploadThings",
            summary="Make many things",
            tag="Things",
            scope=Scope.CHAT_WRITE,
            answers={202: endpoints.json(Things)},
            upload=NDJSON,
            codings=("gzip",),
            idempotency=Idempotency.ACCEPTANCE,
        ),
        endpoints.get(
            "/things",
            listed,
            name="listThings",
            summary="List the things",
            tag="Things",
            scope=Scope.CHAT_READ,
            answers={200: endpoints.rows(Things, item=Thing)},
        ),
        endpoints.get(
            "/things/<uuid:thing_id>",
            read,
            name="getThing",
            summary="Read a thing",
            tag="Things",
            scope=Scope.CHAT_READ,
            answers={200: endpoints.json(Thing, headers={"ETag": "The version of the thing."})},
            examples={"thing_id": THING_ID},
        ),
    ]


def changed_and_watched() -> list[Endpoint]:
    return [
        endpoints.patch(
            "/things/<uuid:thing_id>",
            rename,
            name="renameThing",
            summary="Rename a thing",
            tag="Things",
            scope=Scope.CHAT_WRITE,
            answers={200: endpoints.json(Thing)},
            precondition=Precondition.REQUIRED,
        ),
        endpoints.delete(
            "/slots/<int:number>",
            end,
            name="endSlot",
            summary="End a slot",
            tag="Slots",
            scope=None,
            answers={204: endpoints.nothing()},
            precondition=Precondition.OPTIONAL,
        ),
        endpoints.get(
            "/things/<uuid:thing_id>/events",
            watch,
            name="watchThing",
            summary="Watch a thing",
            tag="Things",
            scope=Scope.CHAT_READ,
            answers={200: endpoints.events(item=Thing)},
        ),
        endpoints.get(
            "/ping",
            ping,
            name="ping",
            summary="Report that the server answers",
            tag="Things",
            scope=None,
            is_public=True,
            answers={200: endpoints.json(dict[str, str])},
        ),
    ]
