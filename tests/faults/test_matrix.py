"""Each cell of the table in docs/reliability.md is what the gateway really answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from faults import matrix
from faults import rig as rigs
from faults.matrix import CELLS, FAULTS, Cell, ProbeResult
from faults.rig import PROVIDER, Rig
from support.waiting import until

_ROUNDS = 2


def test_every_dependency_has_an_answer_for_every_fault() -> None:
    names = {cell.dependency for cell in CELLS}
    assert len(names) == 8
    assert {(cell.dependency, cell.fault) for cell in CELLS} == {(n, f) for n in names for f in FAULTS}


@pytest.fixture(scope="package")
async def names(shared_rig: Rig) -> dict[str, str]:
    return await _make_names(shared_rig)


@pytest.fixture(scope="module")
async def shared_provider_rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rigs.with_provider(tmp_path_factory.mktemp("provider")) as running:
        await running.recovered()
        yield running


@pytest.fixture
async def provider_rig(shared_provider_rig: Rig) -> AsyncIterator[Rig]:
    """Yield the product with one provider outside; after the test that is asked again."""
    yield shared_provider_rig
    async with shared_provider_rig.client() as client:

        async def answers() -> bool:
            return (await client.get("/v1/stocks/AAPL/bars?start=2013-01-01")).status_code == 200

        await until(answers, timeout_s=30)


@pytest.fixture(scope="module")
async def provider_names(shared_provider_rig: Rig) -> dict[str, str]:
    return await _make_names(shared_provider_rig)


async def _make_names(rig: Rig) -> dict[str, str]:
    """Return a mail and a user that exist."""
    async with rig.client() as client:
        mail = await client.post("/v1/emails", json={"to": ["a@example.com"], "subject": "s", "text": "t"})
        person = {"name": "Matrix", "email": "matrix@example.com"}
        user = await client.post("/v1/users", json=person)
    return {"mail": mail.json()["id"], "user": str(user.json()["id"])}


def _is_quick(cell: Cell) -> bool:
    # Silence is where a caller could be kept waiting for ever: by the servers that everything needs.
    return cell.fault == "down" or (cell.fault == "black hole" and cell.reason is not None)


def _parameters(*, of_provider: bool) -> list[Any]:
    return [
        pytest.param(
            cell,
            id=f"{cell.dependency}-{cell.fault}".replace(" ", "-"),
            marks=[] if _is_quick(cell) else [pytest.mark.long],
        )
        for cell in CELLS
        if (cell.dependency == PROVIDER) is of_provider
    ]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("cell", _parameters(of_provider=False))
async def test_the_gateway_answers_as_promised(rig: Rig, names: dict[str, str], cell: Cell) -> None:
    await _keeps_its_promise(rig, names, cell)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("cell", _parameters(of_provider=True))
async def test_the_gateway_answers_as_promised_without_its_provider(
    provider_rig: Rig, provider_names: dict[str, str], cell: Cell
) -> None:
    await _keeps_its_promise(provider_rig, provider_names, cell)


async def _keeps_its_promise(rig: Rig, names: dict[str, str], cell: Cell) -> None:
    seen: list[ProbeResult] = []
    async with rig.client() as client, matrix.suffering(rig, cell):
        for _ in range(_ROUNDS):
            await asyncio.sleep(0.5)
            seen += await matrix.ask_all(client, names)
        await _readiness_is_as_promised(rig, cell)
        seen += await matrix.ask_all(client, names)
    assert matrix.complaints(cell, seen) == []


async def _readiness_is_as_promised(rig: Rig, cell: Cell) -> None:
    if cell.flaps:
        return
    if cell.reason is None:
        assert await rig.reasons("gateway") == {}
        return

    async def reported() -> bool:
        return cell.reason in await rig.reasons("gateway")

    await until(reported, timeout_s=40, what=lambda: f"the reason {cell.reason} in /readyz")
