"""Each cell of the table in docs/reliability.md is what the gateway really does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from faults import matrix
from faults.matrix import CELLS, FAULTS, Cell, Seen
from faults.rig import Rig
from waiting import until

_ROUNDS = 2


def test_every_dependency_has_an_answer_for_every_fault() -> None:
    names = {cell.dependency for cell in CELLS}
    assert len(names) == 7
    assert {(cell.dependency, cell.fault) for cell in CELLS} == {(n, f) for n in names for f in FAULTS}


@pytest.fixture(scope="session")
async def names(shared_rig: Rig) -> dict[str, str]:
    """A mail and a user that exist."""
    async with shared_rig.client() as client:
        mail = await client.post("/v1/emails", json={"to": ["a@example.com"], "subject": "s", "text": "t"})
        person = {"name": "Matrix", "email": "matrix@example.com"}
        user = await client.post("/v1/users", json=person)
    return {"mail": mail.json()["id"], "user": str(user.json()["id"])}


def _is_quick(cell: Cell) -> bool:
    # Silence is where a caller could be kept waiting for ever: by the servers that everything needs.
    return cell.fault == "down" or (cell.fault == "black hole" and cell.reason is not None)


def _parameters() -> list[Any]:
    return [
        pytest.param(
            cell,
            id=f"{cell.dependency}-{cell.fault}".replace(" ", "-"),
            marks=[] if _is_quick(cell) else [pytest.mark.long],
        )
        for cell in CELLS
    ]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("cell", _parameters())
async def test_the_gateway_answers_as_promised(rig: Rig, names: dict[str, str], cell: Cell) -> None:
    seen: list[Seen] = []
    async with rig.client() as client, matrix.suffering(rig, cell):
        for _ in range(_ROUNDS):
            await asyncio.sleep(0.5)
            seen += await matrix.ask_all(client, names)
        await _readiness_is_as_promised(rig, cell)
        seen += await matrix.ask_all(client, names)
    assert matrix.complaints(cell, seen) == []


async def _readiness_is_as_promised(rig: Rig, cell: Cell) -> None:
    if cell.reason is None:
        if cell.fault != "flapping":
            assert await rig.reasons("gateway") == {}
        return

    async def told() -> bool:
        return cell.reason in await rig.reasons("gateway")

    await until(told, timeout_s=40, what=lambda: f"the reason {cell.reason} in /readyz")
