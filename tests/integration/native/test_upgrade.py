"""The previous release runs on this one's schema: it takes over under load, hands back, and loses nothing.

"The release before" runs from a checkout of its own (`support/release_before.py`).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import httpx
import pytest

from native import stack as native_stack
from native.ports import Ports
from native.services import SERVICES
from native.stack import Stack
from support import release_before
from support.waiting import until

ENDED = ("delivered", "completed")
OF_SERVICES = ("gateway", "gateway_ops", "stock_data", "email", "batch_processor")

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the folders of the sources of the release before, for PYTHONPATH."""
    with release_before.checkout(tmp_path_factory.mktemp("previous") / "checkout") as folder:
        sources = ":".join(str(found) for found in sorted(folder.glob("services/*/src")))
        for package in ("chassis", "contracts", *(service.package for service in SERVICES)):
            words = [sys.executable, "-c", f"import {package}; print({package}.__file__)"]
            given = {**os.environ, "PYTHONPATH": sources}
            imported = subprocess.run(words, env=given, capture_output=True, text=True, check=True).stdout
            assert imported.startswith(f"{folder}/services/"), imported
        yield sources


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("upgraded")
    # As the guide says for an upgrade from a release that knows no bundles.
    given = {name: os.environ[name] for name in ("MESSAGE_BUNDLES",) if name in os.environ}
    async with native_stack.start(folder, without=("prometheus",), variables=given) as running:
        yield running


async def start_previous(stack: Stack, sources: str, *names: str) -> tuple[list[str], Ports]:
    """Start services of the release before beside this one's; return their names and their ports."""
    free = {name: number for name, number in Ports.free().numbered().items() if name in OF_SERVICES}
    ports = replace(stack.ports, **free)
    programs = []
    for service in (service for service in SERVICES if service.name in names):
        program = stack.blueprint.backing.program(service, ports)
        # It comes before what is installed, which is this release.
        programs.append(replace(program, environment={**program.environment, "PYTHONPATH": sources}))
    await asyncio.gather(*(stack.supervisor.add(program).start() for program in programs))
    return [program.name for program in programs], ports


@dataclass
class UpgradeLoad:
    """Sends mails and tasks to the first gateway that is not starting or stopping, as a proxy would."""

    gateways: list[Ports]
    key: str
    accepted: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def send(self) -> None:
        """Send for ever, eight at a time: what waits together may travel together."""
        for number in itertools.count():
            mail = {"to": ["ann@example.com"], "subject": f"load {number}", "text": "x"}
            task = {"operation": "echo", "payload": number}
            sent = [("/v1/emails", mail), ("/v1/tasks", task)] * 4
            await asyncio.gather(*(self._post(path, body) for path, body in sent))
            await asyncio.sleep(0.3)

    async def _post(self, path: str, body: object) -> None:
        """Send over a connection of its own, after a health check."""
        headers = {"Authorization": f"Bearer {self.key}"}
        for ports in self.gateways:
            url = f"http://127.0.0.1:{ports.gateway}"
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as client:
                if not await takes_requests(client, ports):
                    continue
                try:
                    answer = await client.post(path, json=body)
                except httpx.ConnectError:
                    continue
            if answer.status_code == 202:
                self.accepted.append(f"{path}/{answer.json()['id']}")
            else:
                self.failures.append(f"{answer.status_code} {answer.text}")
            return
        self.failures.append("no gateway listens")


async def takes_requests(client: httpx.AsyncClient, ports: Ports) -> bool:
    """Return whether a gateway runs that is neither starting nor stopping."""
    try:
        answer = await client.get(f"http://127.0.0.1:{ports.gateway_ops}/readyz/shutdown")
    except httpx.TransportError:
        return False
    return answer.status_code == 200


@asynccontextmanager
async def under_load(load: UpgradeLoad) -> AsyncIterator[None]:
    """Send work during the block; check that all of it ended well, and that no request failed."""
    sending = asyncio.create_task(load.send())
    try:
        yield
        assert not sending.done()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert load.failures == []
    url, headers = f"http://127.0.0.1:{load.gateways[0].gateway}", {"Authorization": f"Bearer {load.key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as client:
        for path in load.accepted:

            async def has_ended(path: str = path) -> bool:
                return (await client.get(path)).json().get("status") in ENDED

            await until(has_ended, timeout_s=60, what=lambda path=path: path)  # type: ignore[misc]
        # What only others are told of the work would be here.
        assert (await client.get("/v1/admin/parked")).json()["data"] == []


async def test_a_mail_and_a_task_pass_through_the_previous_release_on_the_schema_of_this_one(
    stack: Stack, previous: str
) -> None:
    old, _ = await start_previous(stack, previous, "email", "batch-processor")
    await asyncio.gather(stack.stop("email"), stack.stop("batch-processor"))
    load = UpgradeLoad([stack.ports], stack.api_key)
    async with under_load(load):
        await until(lambda: len(load.accepted) > 4)
    await asyncio.gather(stack.start("email"), stack.start("batch-processor"))
    await asyncio.gather(*(stack.stop(name) for name in old))


@pytest.mark.long
async def test_the_previous_release_takes_over_under_load_and_hands_back(stack: Stack, previous: str) -> None:
    names = [service.name for service in SERVICES]
    load = UpgradeLoad([stack.ports], stack.api_key)
    async with under_load(load):
        old, ports = await start_previous(stack, previous, *names)
        load.gateways.append(ports)
        # The way back: one service after the other is of the release before.
        for name in names:
            await stack.stop(name)
        await asyncio.sleep(2)
        # And the upgrade.
        for name, of_before in zip(names, old, strict=True):
            await stack.start(name)
            await stack.stop(of_before)
        await asyncio.sleep(1)
    assert len(load.accepted) > 50
