"""Start real servers for the tests once a run, on private ports, and leave them clean for each test."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import Any

import certifi
import pytest
import structlog

from chassis import queries
from native import memcached, postgres, rabbitmq
from support import brokers, databases, scheduling
from support.databases import FreshDatabase
from support.scheduling import GroupScheduling

_TESTS = Path(__file__).parent

# What runs in the process of the tests writes tracebacks as they are: drawn in boxes with all their local
# values, one of a long error holds the event loop up for seconds.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


# As the composition roots do: most tests use parts of a service without one.
queries.load("chassis", "gateway", "stock_data", "emailer", "batch_processor")

_make_context = ssl.create_default_context
# Those of the package, or of the machine where it names its own.
_PUBLIC = {certifi.where(), os.environ.get("SSL_CERT_FILE", certifi.where())}


@cache
def _public_context(file: str) -> ssl.SSLContext:
    return _make_context(cafile=file)


def _context(*purpose: Any, **files: Any) -> ssl.SSLContext:
    """Return a context as `ssl.create_default_context` does; that of the public authorities is made once."""
    is_public = not purpose and files.keys() == {"cafile"} and files["cafile"] in _PUBLIC
    return _public_context(files["cafile"]) if is_public else _make_context(*purpose, **files)


# Each HTTP client would read the certificates of all authorities anew: 50 ms of a processor, which a test
# that polls, with a client of its own each time, takes from the service that it waits for.
ssl.create_default_context = _context
# The databases of the tests have no TLS: without this each connection would ask for it first.
os.environ.setdefault("PGSSLMODE", "disable")
# `make test ARGS=…` would hand its arguments on to every `make` that a test calls.
for _name in ("ARGS", "MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS"):
    os.environ.pop(_name, None)


def pytest_configure(config: pytest.Config) -> None:
    """Let a worker without servers have what the others leave of the processors."""
    worker: str = getattr(config, "workerinput", {}).get("workerid", "gw0")
    if int(worker.removeprefix("gw")) >= scheduling.MOST_WITH_SERVERS:
        os.nice(5)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    """Return the scheduler that divides the tests among several workers."""
    return GroupScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest groups first."""
    order = {group: number for number, group in enumerate(scheduling.FIRST)}

    def place(item: pytest.Item) -> int:
        suite, folder = item.path.relative_to(_TESTS).parts[:2]
        return order.get(f"{suite}/{folder}", order.get(suite, len(order)))

    items.sort(key=place)


@pytest.fixture(scope="session")
async def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[rabbitmq.RabbitMQ]:
    async with rabbitmq.start(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture(scope="session")
async def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[postgres.PostgresServer]:
    async with postgres.start(tmp_path_factory.mktemp("postgres")) as server:
        await databases.hasten_logins(server.url)
        yield server


@pytest.fixture(scope="session")
async def memcached_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[memcached.Memcached]:
    async with memcached.start(tmp_path_factory.mktemp("memcached")) as server:
        yield server


@pytest.fixture
async def broker_url(rabbitmq_server: rabbitmq.RabbitMQ) -> str:
    """Return the broker's address with its administrator's credentials; the queues are empty at first."""
    await brokers.empty(rabbitmq_server.url)
    return rabbitmq_server.url


@pytest.fixture
async def fresh_database(postgres_server: postgres.PostgresServer) -> AsyncIterator[FreshDatabase]:
    """Return a function that makes databases, empty or migrated, which are dropped after the test."""
    made: list[str] = []
    server = databases.on(postgres_server.url)

    async def create(package: str = "") -> str:
        made.append(await server.create(package))
        return made[-1]

    try:
        yield create
    finally:
        await asyncio.gather(*map(server.drop, made))
