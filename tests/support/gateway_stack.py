"""A real gateway on real servers, opened inside the test, with small doubles for the other services."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import aiormq
import asyncpg
import httpx
import orjson
import uvicorn
from websockets.asyncio.client import ClientConnection
from yarl import URL

from chassis import asgi
from chassis.broker.answering import Answer, RpcServer
from chassis.broker.envelope import Outgoing
from chassis.broker.messaging import Messaging
from chassis.health import Health
from chassis.supervision import Tasks
from contracts.message import Request
from contracts.topology import TOPOLOGIES, rpc_queue
from gateway.app import wired
from gateway.identity import keys
from gateway.realtime.wire import WebSocketWire
from gateway.resources import Resources
from gateway.settings import GatewaySettings
from native.memcached import Memcached
from native.postgres import PostgresServer
from native.rabbitmq import RabbitMQ
from support import databases
from support.bundled import messages_in
from support.waiting import until

PEPPER = "a pepper for the tests"


class Gate:
    """A TCP proxy to a server; it can be shut, so that the server is unavailable, and opened again."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def lead_to(self, host: str, port: int) -> None:
        """Forward new connections to another server."""
        self._target = (host, port)

    async def shut(self) -> None:
        """Refuse new connections and cut the open ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            self._writers -= {writer, back}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        return
    finally:
        writer.transport.abort()


@dataclass(frozen=True)
class GatewayInProcess:
    """A gateway in this process: its parts, and the application that serves them."""

    resources: Resources
    app: asgi.Application


@dataclass
class RunningGateway:
    """A running gateway, its address, its database and a client with the first administrator's key."""

    gateway: GatewayInProcess
    server: uvicorn.Server
    url: str
    api: httpx.AsyncClient
    admin_key: str
    database: asyncpg.Pool[asyncpg.Record]
    gate: Gate | None = None

    @property
    def socket_url(self) -> str:
        return self.url.replace("http", "ws", 1)

    @property
    def settings(self) -> GatewaySettings:
        return self.gateway.resources.settings

    async def new_user(self, name: str = "Member", *, role: str = "member") -> int:
        user = {"name": name, "email": f"{uuid.uuid4().hex}@example.com", "role": role}
        return int((await self.api.post("/v1/users", json=user)).json()["id"])

    async def change_user(self, user_id: int, **changes: str) -> None:
        answer = await self.api.patch(f"/v1/users/{user_id}", json=changes, headers={"if-match": "*"})
        assert answer.status_code == 200, answer.text

    async def new_key(self, *scopes: str, user_id: int | None = None) -> str:
        """Return a key of a user (None: a new one) with `scopes`."""
        user_id = user_id or await self.new_user()
        wanted = {"name": "test", "scopes": scopes, "user_id": user_id}
        answer = await self.api.post("/v1/api-keys", json=wanted)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["key"])

    @asynccontextmanager
    async def client(self, key: str) -> AsyncIterator[httpx.AsyncClient]:
        headers = {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20) as client:
            yield client

    async def ready(self, *, but: Set[str] = frozenset()) -> None:
        """Wait until the gateway is ready except for the named parts."""
        health = self.gateway.resources.runtime.health
        await until(lambda: set(health.reasons()) <= but, what=lambda: str(health.reasons()))


class House:
    """Opens gateways and doubles on the test's servers and closes them at the end."""

    def __init__(
        self, rabbitmq: RabbitMQ, postgres: PostgresServer, memcached: Memcached, stack: AsyncExitStack
    ) -> None:
        self.rabbitmq_url = rabbitmq.url
        self.postgres_url = postgres.url
        self.memcached_address = memcached.address
        self._stack = stack
        self._opened: list[RunningGateway] = []

    @property
    def broker_place(self) -> tuple[str, int]:
        """The host and port of the broker, for a gate."""
        url = URL(self.rabbitmq_url)
        assert url.host is not None
        assert url.port is not None
        return url.host, url.port

    def broker_url_by(self, gate: Gate) -> str:
        """Return the broker's address through a gate."""
        return str(URL(self.rabbitmq_url).with_host("127.0.0.1").with_port(gate.port))

    @property
    def postgres_port(self) -> int:
        """The port of PostgreSQL, for a gate."""
        return URL(self.postgres_url).port or 5432

    def dsn_by(self, dsn: str, gate: Gate) -> str:
        """Return a database's address through a gate."""
        return str(URL(dsn).with_host("127.0.0.1").with_port(gate.port))

    async def database(self, package: str = "gateway") -> str:
        """Return a database that `package` has migrated; it is dropped at the end."""
        server = databases.on(self.postgres_url)
        dsn = await server.create(package)
        self._stack.push_async_callback(server.drop, dsn)
        return dsn

    async def gate(self, host: str, port: int) -> Gate:
        gate = Gate(host, port)
        await gate.open()
        self._stack.push_async_callback(gate.shut)
        return gate

    async def open(
        self,
        *,
        dsn: str | None = None,
        wait: bool = True,
        limits: Mapping[str, Any] = MappingProxyType({}),
        **changes: Any,
    ) -> RunningGateway:
        """Return a gateway on a new database, or on `dsn`, with settings `changes` and `limits`."""
        dsn = dsn or await self.database()
        admin_key = changes.pop("bootstrap_key", None) or str(keys.new_key())
        settings = GatewaySettings.model_validate(
            {
                "rabbitmq_url": self.rabbitmq_url,
                "postgres_dsn": dsn,
                "memcached_address": self.memcached_address,
                "key_pepper": PEPPER,
                "bootstrap_key": admin_key,
                "shutdown_grace_s": 2,
                "postgres_pool_size": 5,
                **changes,
            }
        )
        opened = await self._stack.enter_async_context(running(settings, admin_key, wait=wait, limits=limits))
        self._opened.append(opened)
        return opened

    async def double(self, service: str, answers: Mapping[type[Request], Answer]) -> Messaging:
        """Return a double that answers the requests to `service`, until the end of the test."""
        return await self._stack.enter_async_context(answering(self.rabbitmq_url, service, answers))

    async def take(self, queue: str, count: int = 1) -> list[dict[str, Any]]:
        """Return the next messages of a queue: their bodies, with type, id and headers under `_`."""
        connection = await aiormq.connect(self.rabbitmq_url)
        found: list[dict[str, Any]] = []
        try:
            channel = await connection.channel()

            async def get() -> bool:
                for message in messages_in(await channel.basic_get(queue, no_ack=True)):
                    about = {
                        "type": message.message_type,
                        "id": message.message_id,
                        "headers": message.headers,
                        "body": message.body,
                    }
                    found.append({**orjson.loads(message.body), "_": about})
                return len(found) >= count

            await until(get, what=lambda: f"{count} messages in {queue}, there were {len(found)}")
        finally:
            await connection.close()
        return found

    async def depth(self, queue: str) -> int:
        """Return how many messages are in a queue."""
        connection = await aiormq.connect(self.rabbitmq_url)
        try:
            channel = await connection.channel()
            declared = await channel.queue_declare(queue, passive=True)
            return int(declared.message_count or 0)
        finally:
            await connection.close()

    async def purge(self, *queues: str) -> None:
        """Empty queues, once the open gateways have published all that they accepted before."""

        async def published() -> bool:
            counts = [
                await listener.database.fetchval("SELECT count(*) FROM outbox") for listener in self._opened
            ]
            return not any(counts)

        await until(published, what=lambda: "nothing in the outboxes")
        connection = await aiormq.connect(self.rabbitmq_url)
        try:
            channel = await connection.channel()
            for queue in queues:
                await channel.queue_purge(queue)
        finally:
            await connection.close()

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish as another service would."""
        async with answering(self.rabbitmq_url, "stock-data", {}) as messaging:
            for message in messages:
                await (messaging.publisher.publish if message.persistent else messaging.publisher.send)(
                    message
                )


@asynccontextmanager
async def running(
    settings: GatewaySettings,
    admin_key: str,
    *,
    wait: bool,
    limits: Mapping[str, Any] = MappingProxyType({}),
) -> AsyncIterator[RunningGateway]:
    """Run a gateway on a free port until the end of the block."""
    gateway = GatewayInProcess(resources := Resources(settings), wired(settings, resources))
    listener = asgi.Listener(
        gateway.app.asgi,
        "127.0.0.1",
        0,
        websockets=WebSocketWire,
        limits=dataclasses.replace(settings.connection_limits, **limits),
        turns=gateway.app.turns,
    )
    server = asgi.create_server(listener, lifespan=True, grace_s=2)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started or serving.done())
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    dsn = settings.postgres_dsn.get_secret_value()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_stop, server, serving)
        database = await stack.enter_async_context(asyncpg.create_pool(dsn, min_size=1, max_size=2))
        headers = {"authorization": f"Bearer {admin_key}"}
        api = await stack.enter_async_context(httpx.AsyncClient(base_url=url, headers=headers, timeout=20))
        opened = RunningGateway(gateway, server, url, api, admin_key, database)
        if wait:
            await opened.ready()
        yield opened


async def _stop(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    server.should_exit = True
    await serving


@asynccontextmanager
async def answering(
    url: str, service: str, answers: Mapping[type[Request], Answer]
) -> AsyncIterator[Messaging]:
    """Yield a service that only answers requests."""
    messaging = Messaging(url, TOPOLOGIES[service])
    tasks, health = Tasks(), Health()
    if answers:
        messaging.answer(_server(messaging, service, answers))
    messaging.start(tasks, health)
    await until(lambda: not health.reasons(), what=lambda: str(health.reasons()))
    try:
        yield messaging
    finally:
        await tasks.close()
        await messaging.close()


def _server(messaging: Messaging, service: str, answers: Mapping[type[Request], Answer]) -> RpcServer:
    queue = next(q for q in messaging.topology.queues if q.name == rpc_queue(service))
    return RpcServer(queue, answers, publisher=messaging.publisher)


class Talk:
    """One connection that speaks the protocol of `/v1/realtime`."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._number = 0
        self.connected: dict[str, Any] = {}
        self._pushes: list[dict[str, Any]] = []

    async def ask(self, **command: Any) -> Any:
        """Return the part of the reply under the command's name, or its error."""
        self._number += 1
        await self.socket.send(orjson.dumps({"id": self._number, **command}).decode())
        while (frame := await self._frame()).get("id") != self._number:
            self._pushes.append(frame["push"])
        ((_, content),) = ((name, content) for name, content in frame.items() if name != "id")
        return content

    async def push(self) -> dict[str, Any]:
        """Return the next push: its channel, and the parts of its publication."""
        push = self._pushes.pop(0) if self._pushes else dict((await self._frame())["push"])
        return {"channel": push["channel"], **push.get("pub", push)}

    async def _frame(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while (frame := dict(orjson.loads(await self.socket.recv()))) == {}:
                await self.socket.send("{}")
            return frame


Connect = Callable[..., AbstractAsyncContextManager[ClientConnection]]
OpenTalk = Callable[..., AbstractAsyncContextManager[Talk]]
