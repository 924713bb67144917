"""The real gateway on real servers, with no other service but small doubles that answer for them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import structlog
import websockets
from websockets.asyncio.client import ClientConnection

from chassis import logging
from native.memcached import Memcached
from native.postgres import PostgresServer
from native.rabbitmq import RabbitMQ
from support import brokers, credentials, upload_site
from support.credentials import Keys
from support.doubles import issuer as issuers
from support.doubles.issuer import Issuer
from support.gateway_stack import Connect, House, OpenTalk, RunningGateway, Talk
from support.upload_site import UploadSite


@pytest.fixture(scope="package", autouse=True)
def _plain_logs() -> Iterator[None]:
    before = structlog.get_config()
    logging.configure(service="gateway", level="WARNING", style="json")
    # A logger that kept this would log like a gateway in the tests of the others.
    structlog.configure(cache_logger_on_first_use=False)
    yield
    structlog.configure(**before)


@pytest.fixture(scope="package", autouse=True)
async def _empty_queues(rabbitmq_server: RabbitMQ) -> None:
    # A gateway would take in what other suites have left, the operations that they announced for example.
    await brokers.empty(rabbitmq_server.url)


@pytest.fixture(scope="package")
async def shared_house(
    rabbitmq_server: RabbitMQ, postgres_server: PostgresServer, memcached_server: Memcached
) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        yield House(rabbitmq_server, postgres_server, memcached_server, stack)


@pytest.fixture(scope="module")
async def module_house(
    rabbitmq_server: RabbitMQ, postgres_server: PostgresServer, memcached_server: Memcached
) -> AsyncIterator[House]:
    """Yield a house whose gateways live as long as the tests of one file."""
    async with AsyncExitStack() as stack:
        yield House(rabbitmq_server, postgres_server, memcached_server, stack)


@pytest.fixture(scope="module")
async def site(module_house: House) -> AsyncIterator[UploadSite]:
    async with upload_site.running(module_house) as running:
        yield running


@pytest.fixture
async def house(
    rabbitmq_server: RabbitMQ, postgres_server: PostgresServer, memcached_server: Memcached
) -> AsyncIterator[House]:
    """Yield a house whose gateways live as long as the test."""
    async with AsyncExitStack() as stack:
        yield House(rabbitmq_server, postgres_server, memcached_server, stack)


@pytest.fixture(scope="package")
async def shared_listener(shared_house: House) -> RunningGateway:
    """Return a gateway for all tests that do not change it."""
    return await shared_house.open()


@pytest.fixture
async def listener(shared_listener: RunningGateway, shared_house: House) -> RunningGateway:
    """Return the shared gateway; the queues of commands are empty at the start."""
    await shared_house.purge("email.send", "batch-processor.intake", "gateway.events", "gateway.parked")
    return shared_listener


@pytest.fixture(scope="package")
async def issuer() -> AsyncIterator[Issuer]:
    async with issuers.serving() as serving:
        yield serving


@pytest.fixture(scope="package")
async def guarded_listener(shared_house: House, issuer: Issuer) -> RunningGateway:
    """Return the gateway that is tried with every kind of credential."""
    return await shared_house.open(oidc_issuer=issuer.url, oidc_audience=issuers.AUDIENCE)


@pytest.fixture(scope="package")
async def keys(guarded_listener: RunningGateway, issuer: Issuer) -> Keys:
    return await credentials.make(guarded_listener, issuer)


@pytest.fixture(scope="package")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with npm `centrifuge`; without Node skip the test, or fail in CI."""
    folder = tmp_path_factory.mktemp("npm")
    npm = shutil.which("npm") if shutil.which("node") else None
    reason = "node and npm are needed for the JavaScript client"
    if npm is not None:
        (folder / "package.json").write_text("{}")
        options = ("--no-package-lock", "--no-audit", "--no-fund", "--silent", "--prefix", str(folder))
        if subprocess.run([npm, "install", *options, "centrifuge@5", "ws@8"], check=False).returncode == 0:
            return folder
        reason = "npm could not install the packages centrifuge and ws"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="package")
def node(modules: Path) -> str:
    """Return the program that runs JavaScript; without it skip the test."""
    found = shutil.which("node")
    assert found is not None, modules
    return found


@pytest.fixture(scope="package")
def connect() -> Connect:
    """Return a function that opens a WebSocket, by default with the administrator's key."""

    @asynccontextmanager
    async def open_socket(
        listener: RunningGateway, path: str, *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[ClientConnection]:
        given = {"authorization": f"Bearer {listener.admin_key}"} if headers is None else headers
        async with websockets.connect(
            listener.socket_url + path, additional_headers=given, max_size=None, proxy=None
        ) as socket:
            yield socket

    return open_socket


@pytest.fixture(scope="package")
def talk(connect: Connect) -> OpenTalk:
    """Return a function that connects to `/v1/realtime`."""

    @asynccontextmanager
    async def open_talk(listener: RunningGateway, key: str | None = None) -> AsyncIterator[Talk]:
        headers = {"authorization": f"Bearer {key or listener.admin_key}"}
        async with connect(listener, "/v1/realtime", headers=headers) as socket:
            client = Talk(socket)
            client.connected = await client.ask(connect={})
            yield client

    return open_talk
