"""Public documents are built once, whoever asks for them and however often."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.http.calls import Call
from gateway.http.endpoints import Endpoint
from gateway.reference.service import ASYNCAPI, HTML, OPENAPI, ReferenceService
from support.waiting import until


class CountedEndpoints(list[Endpoint]):
    """Endpoints that count how often they are gone through."""

    looks = 0

    def __iter__(self) -> Iterator[Endpoint]:
        self.looks += 1
        return super().__iter__()


@pytest.mark.parametrize("media_type", ["application/json", HTML])
async def test_problem_types_are_described_once_and_the_endpoints_are_visited_once(media_type: str) -> None:
    endpoints = CountedEndpoints()
    service = ReferenceService(endpoints)
    call: Any = SimpleNamespace(media_type=media_type)
    lists = await asyncio.gather(*(service.list_problems(call) for _ in range(20)))
    pages = await asyncio.gather(*(service.problem(call, "not-found") for _ in range(20)))
    assert len({id(reply) for reply in lists}) == len({id(reply) for reply in pages}) == 1
    assert lists[0].etag
    assert endpoints.looks == 1


async def test_a_document_whose_callers_leave_early_is_built_once_all_the_same() -> None:
    call: Any = SimpleNamespace(media_type="application/json")
    begun, may_end = threading.Event(), threading.Event()

    class SlowEndpoints(CountedEndpoints):
        def __iter__(self) -> Iterator[Endpoint]:
            begun.set()
            assert may_end.wait(30)
            return super().__iter__()

    endpoints = SlowEndpoints()
    service = ReferenceService(endpoints)
    for _ in range(3):
        leaving = asyncio.create_task(service.list_problems(call))
        await until(begun.is_set)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    may_end.set()
    assert (await service.list_problems(call)).etag
    assert endpoints.looks == 1


async def test_the_documents_of_the_api_are_the_files_as_they_are() -> None:
    service, call = ReferenceService(endpoints := CountedEndpoints()), cast(Call, None)
    for answer, file in ((service.openapi, OPENAPI), (service.asyncapi, ASYNCAPI)):
        reply = await answer(call)
        assert reply.body == file.read_bytes()
        assert reply.etag
    assert endpoints.looks == 0


async def test_a_document_that_could_not_be_built_is_built_with_the_next_request() -> None:
    class FailingEndpoints(CountedEndpoints):
        def __iter__(self) -> Iterator[Endpoint]:
            found = super().__iter__()
            if self.looks == 1:
                raise RuntimeError("a bug")
            return found

    service = ReferenceService(FailingEndpoints())
    call: Any = SimpleNamespace(media_type="application/json")
    with pytest.raises(RuntimeError):
        await service.list_problems(call)
    assert (await service.list_problems(call)).etag
