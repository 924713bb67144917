"""An orderly stop loses nothing and cuts nobody off; a start waits, says why, and succeeds in the end."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import httpx
import pytest

from faults import audit, load
from faults import rig as rigs
from faults.ledger import Ledger
from faults.load import EvenLoad, WorkCounts
from faults.rig import Rig
from native.services import NAMES
from support.waiting import until

_GRACE_S = 15 + 5


@pytest.mark.timeout(180)
@pytest.mark.parametrize("service", ["email", "batch-processor", "gateway"])
async def test_a_stop_drains_within_its_grace_and_loses_nothing(rig: Rig, service: str) -> None:
    ledger = Ledger()
    work = load.plan(WorkCounts(mails=150, tasks=60, batches=6), ledger, random.Random(service))
    loading = asyncio.create_task(EvenLoad(rig, work, ledger, seconds=4).run())
    await asyncio.sleep(1.5)
    started = time.monotonic()
    await rig.stack.stop(service)
    assert time.monotonic() - started < _GRACE_S
    await rig.stack.start(service)
    await loading
    await audit.settle(rig, ledger)
    balance = ledger.balance()
    assert balance.complaints == ()
    assert (balance.accepted, balance.duplicates) == (len(work), 0)


@pytest.mark.timeout(120)
async def test_a_stop_cuts_no_request_that_is_being_answered(rig: Rig) -> None:
    """Yield the answer of an upload that is under way at SIGTERM still comes, and is kept."""
    under_way = asyncio.Event()

    async def lines() -> object:
        for number in range(40):
            yield b'{"payload": %d}\n' % number
            if number == 10:
                under_way.set()
            await asyncio.sleep(0.1)

    async with rig.client() as client:
        headers = {"Content-Type": "application/x-ndjson"}
        upload = asyncio.create_task(
            client.post("/v1/batches?operation=echo", content=lines(), headers=headers)  # type: ignore[arg-type]
        )
        await under_way.wait()
        await rig.stack.stop("gateway")
        answer = await upload
        await rig.stack.start("gateway")
        assert answer.status_code == 202, answer.text

        async def completed() -> bool:
            batch = (await client.get(answer.headers["location"])).json()
            return bool(batch["status"] == "completed" and batch["counts"]["succeeded"] == 40)

        await until(completed, timeout_s=30)


@pytest.mark.timeout(180)
async def test_a_start_without_any_server_waits_says_why_and_succeeds_in_the_end(tmp_path: Path) -> None:
    async with rigs.waiting_for(tmp_path) as rig:
        for service in NAMES:
            await until(lambda s=service: _tells(rig, s, "database"), timeout_s=40)
        assert await _are_alive(rig)
        await rig.proxies["postgres"].recover()
        for service in NAMES:
            await until(lambda s=service: _tells(rig, s, "broker-consume"), timeout_s=40)
        assert await _are_alive(rig)
        pids = dict(rig.stack.pids)
        await rig.proxies["rabbitmq"].recover()

        async def all_ready() -> bool:
            return not await rig.unready()

        # The relay is still away: mails are taken all the same.
        await until(all_ready, timeout_s=40)
        await rig.calm()
        await rig.recovered()
        assert {name: rig.stack.pids[name] for name in NAMES} == {name: pids[name] for name in NAMES}


async def _tells(rig: Rig, service: str, check: str) -> bool:
    reasons = await rig.reasons(service)
    assert "startup" not in reasons or reasons["startup"]
    return check in reasons and "cannot connect" in reasons[check]


async def _are_alive(rig: Rig) -> bool:
    async with httpx.AsyncClient() as client:
        answers = [await client.get(f"{rig.stack.ops_url(service)}/livez") for service in NAMES]
    return all(answer.status_code == 200 for answer in answers)
