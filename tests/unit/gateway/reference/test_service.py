"""Public documents are built once, whoever asks for them and however often."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.http.endpoints import Endpoint
from gateway.reference.service import HTML, ReferenceService


class CountedEndpoints(list[Endpoint]):
    """Endpoints that count how often they are gone through."""

    looks = 0

    def __iter__(self) -> Iterator[Endpoint]:
        self.looks += 1
        return super().__iter__()


@pytest.mark.parametrize("media_type", ["application/json", HTML])
async def test_problem_types_are_described_once_and_the_endpoints_are_visited_once(media_type: str) -> None:
    endpoints = CountedEndpoints()
    service = ReferenceService(endpoints, [])
    call: Any = SimpleNamespace(media_type=media_type)
    lists = await asyncio.gather(*(service.list_problems(call) for _ in range(20)))
    pages = await asyncio.gather(*(service.problem(call, "not-found") for _ in range(20)))
    assert len({id(reply) for reply in lists}) == len({id(reply) for reply in pages}) == 1
    assert lists[0].etag
    assert endpoints.looks == 1
