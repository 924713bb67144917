"""Real faults on a live stack, each of which fires its alert, and goes out when the fault is healed.

The alerts are those of production with shorter times; thresholds and expressions are untouched.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import httpx
import pytest

from native import stack as native_stack
from native import supervisor
from native.directories import RunDirectory
from native.prometheus import PrometheusServer
from native.services import NAMES
from native.stack import Stack
from support import monitored, traffic
from support.waiting import until
from support.watching import Watcher

Alert = tuple[str, str]
Fault = AbstractAsyncContextManager[None]

_DEAD_MAN = ("TickwireDeadMan", "")
# A machine that is busy with other things holds loops up: that is true, and not the fault that was made.
_BYSTANDERS = {"TickwireDeadMan", "TickwireEventLoopStalled"}
# An alert about a rate goes out when its window has passed: eight scrapes are enough to see one.
_WINDOW_S = 8
_FIRES_WITHIN_S = 40
_GOES_OUT_WITHIN_S = 70
_STALL_S = 2.5
_MAIL = {"to": ["ann@example.com"], "subject": "fault", "text": "x"}

# Longer than its waits together: the wait that is over says what was missing.
pytestmark = pytest.mark.timeout(300)

VARIABLES = {
    # Nobody answers there; the data that comes with the stack is second.
    "STOCK_DATA_PROVIDERS": "alpaca,embedded",
    "STOCK_DATA_ALPACA_URL": "http://127.0.0.1:9",
    "STOCK_DATA_ALPACA_KEY_ID": "nobody",
    "STOCK_DATA_ALPACA_SECRET_KEY": "nothing",
    "STOCK_DATA_REPLAY_ENABLED": "true",
    "POSTGRES_POOL_SIZE": "4",
    "EMAIL_ROUTE_PAUSE_S": "0.1",
}


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory = tmp_path_factory.mktemp("faulty")
    async with native_stack.start(directory, without=("prometheus",), variables=VARIABLES) as running:
        yield running


@pytest.fixture(scope="module")
async def watcher(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watcher]:
    """Yield a Prometheus beside the stack, with the rules in a hurry."""
    directory = tmp_path_factory.mktemp("hurried")
    hurry(directory / "rules")
    run = RunDirectory.at(directory)
    server = PrometheusServer(run, stack.ports, 1, 1, directory / "rules")
    async with (
        supervisor.running(run.root, [*server.stages, *stack.blueprint.postgres_exporter.stages]),
        httpx.AsyncClient(base_url=server.url, timeout=20) as client,
    ):
        yield Watcher(client)


@pytest.fixture(scope="module")
async def api(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with traffic.client(stack) as client:
        yield client


def hurry(folder: Path) -> None:
    """Copy the rules of the causes with seconds in place of minutes."""
    folder.mkdir()
    text = (monitored.RULES / "causes.yml").read_text()
    text = re.sub(r"for: \d+m", "for: 2s", text)
    text = re.sub(r"\[\d+m\]", f"[{_WINDOW_S}s]", text)
    (folder / "causes.yml").write_text(re.sub(r"offset \d+m", f"offset {_WINDOW_S}s", text))


@asynccontextmanager
async def reported(watcher: Watcher, fault: Fault, *alerts: Alert) -> AsyncIterator[None]:
    """Check that `alerts` are silent before the block, fire during it, and are silent again after it."""
    wanted = set(alerts)
    await quiet(watcher, but=wanted)
    fired: set[Alert] = set()

    async def all_fire() -> bool:
        nonlocal fired
        fired = await watcher.firing()
        return wanted <= fired

    async with fault:
        await until(all_fire, timeout_s=_FIRES_WITHIN_S, what=lambda: f"{wanted} fire; {fired} do")
        yield
    await quiet(watcher)


async def quiet(watcher: Watcher, *, but: Collection[Alert] = ()) -> None:
    """Wait until no alert fires except bystanders, and none of `but`."""
    loud: set[Alert] = set()

    async def only_bystanders() -> bool:
        nonlocal loud
        alerts = await watcher.firing()
        loud = {alert for alert in alerts if alert[0] not in _BYSTANDERS or alert in but}
        return _DEAD_MAN in alerts and not loud

    await until(only_bystanders, timeout_s=_GOES_OUT_WITHIN_S, what=lambda: f"quiet, but {loud} fire")


async def test_an_alert_fires_for_every_service_when_the_broker_is_down(
    stack: Stack, watcher: Watcher
) -> None:
    disconnected = [("TickwireBrokerDisconnected", service) for service in NAMES]
    async with reported(
        watcher, stopped(stack, "rabbitmq"), ("TickwireServiceDown", "rabbitmq"), *disconnected
    ):
        # Nobody can count consumers now: that must not look like queues without any.
        assert ("TickwireNoConsumers", "email") not in await watcher.firing()


async def test_an_alert_names_the_queue_of_a_consumer_that_is_gone(stack: Stack, watcher: Watcher) -> None:
    alerts = (("TickwireNoConsumers", "email"), ("TickwireServiceDown", "email"))
    async with reported(watcher, stopped(stack, "email"), *alerts):

        async def all_are_named() -> bool:
            found = await watcher.alerts("TickwireNoConsumers")
            queues = {alert["labels"]["queue"] for alert in found}
            return queues == {"email.send", "email.bulk", "email.excess", "email.parked"}

        await until(all_are_named)


async def test_an_alert_fires_while_mails_wait_for_a_relay_that_refuses(
    stack: Stack, watcher: Watcher, api: httpx.AsyncClient
) -> None:
    @asynccontextmanager
    async def refusing() -> AsyncIterator[None]:
        async with stopped(stack, "mailbox"):
            await api.post("/v1/emails", json=_MAIL)
            yield

    async with reported(watcher, refusing(), ("TickwireMailRoutePaused", "email")):
        (alert,) = await watcher.alerts("TickwireMailRoutePaused")
        assert alert["annotations"]["summary"] == "No mail leaves: the relay is unreachable"


async def test_an_alert_fires_when_a_provider_fails_though_another_one_answers(
    watcher: Watcher, api: httpx.AsyncClient
) -> None:
    path = "/v1/stocks/AAPL/bars"
    async with reported(watcher, asked(api, path), ("TickwireProviderFailing", "stock-data")):
        assert (await api.get(path)).status_code == 200


async def test_an_alert_fires_when_an_event_loop_stands_still(stack: Stack, watcher: Watcher) -> None:
    service = "batch-processor"
    async with reported(watcher, frozen(stack, service), ("TickwireEventLoopStalled", service)):
        assert (await watcher.alerts("TickwireEventLoopStalled"))[0]["labels"]["severity"] == "ticket"


async def test_an_alert_fires_when_a_pool_has_no_free_connection(
    stack: Stack, watcher: Watcher, api: httpx.AsyncClient
) -> None:
    # An owner leaves connections to the others, so it takes many to hold all ten and still want more.
    owners = [await _new_owner(api, number) for number in range(24)]

    @asynccontextmanager
    async def exhausted() -> AsyncIterator[None]:
        async with locked(stack, "emailer", "emails"), AsyncExitStack() as asking:
            for owner in owners:
                await asking.enter_async_context(asked(api, "/v1/emails", owner))
            yield

    async with reported(watcher, exhausted(), ("TickwirePoolExhausted", "email")):
        pass
    assert (await api.get("/v1/emails", headers=owners[0])).status_code == 200


@asynccontextmanager
async def stopped(stack: Stack, name: str) -> AsyncIterator[None]:
    """Keep a process stopped for the length of the block."""
    await stack.stop(name)
    try:
        yield
    finally:
        await stack.start(name)


@asynccontextmanager
async def asked(
    api: httpx.AsyncClient, path: str, headers: dict[str, str] | None = None
) -> AsyncIterator[None]:
    """Request `path` again and again for the length of the block."""

    async def ask() -> None:
        while True:
            await _try_to_get(api, path, headers)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(ask())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def frozen(stack: Stack, name: str) -> AsyncIterator[None]:
    """Stop a process (SIGSTOP) for a while before the block."""
    stack.kill(name, signal.SIGSTOP)
    try:
        await asyncio.sleep(_STALL_S)
    finally:
        stack.kill(name, signal.SIGCONT)
    yield


@asynccontextmanager
async def locked(stack: Stack, database: str, table: str) -> AsyncIterator[None]:
    """Lock a table against reads for the length of the block."""
    connection = await asyncpg.connect(stack.postgres.url.rsplit("/", 1)[0] + f"/{database}")
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def _new_owner(api: httpx.AsyncClient, number: int) -> dict[str, str]:
    """Return the headers of a new user, who may read mails."""
    user = (await api.post("/v1/users", json={"name": "Guest", "email": f"g{number}@example.com"})).json()
    wanted = {"name": "mails", "scopes": ["emails:read"], "user_id": user["id"]}
    key = (await api.post("/v1/api-keys", json=wanted)).json()["key"]
    return {"authorization": f"Bearer {key}"}


async def _try_to_get(api: httpx.AsyncClient, path: str, headers: dict[str, str] | None = None) -> None:
    with suppress(httpx.HTTPError):
        await api.get(path, headers=headers)
