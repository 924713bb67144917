"""A password that is changed in a server while a service runs: connections are opened with the new one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from yarl import URL

from chassis.errors import DatabaseUnavailable
from chassis.postgres import Postgres
from chassis.runtime import ServiceRuntime
from chassis.settings import Settings, load
from contracts.topology import GATEWAY
from native.rabbitmq import RabbitMQ
from support import bench
from support.databases import FreshDatabase
from support.waiting import until


@dataclass
class ChangingLogin:
    """A role of the server with a password, and the file that a service reads its address from."""

    admin: asyncpg.Connection[asyncpg.Record]
    file: Path
    dsn: str
    role: str

    async def change(self, password: str) -> None:
        """Change the password in the server, as `make rotate` does before it writes the file."""
        await self.admin.execute(f"ALTER ROLE {self.role} PASSWORD '{password}'")

    def write(self, password: str) -> None:
        place = self.dsn.rpartition("@")[2]
        self.file.write_text(f"postgresql://{self.role}:{password}@{place}")


@pytest.fixture
async def login(fresh_database: FreshDatabase, tmp_path: Path) -> AsyncIterator[ChangingLogin]:
    dsn, role = await fresh_database(), f"test_{uuid4().hex}"
    admin = await asyncpg.connect(dsn)
    await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'before'")
    made = ChangingLogin(admin, tmp_path / "postgres-dsn", dsn, role)
    made.write("before")
    yield made
    await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    await admin.close()


async def test_a_service_opens_connections_with_a_password_that_was_changed_after_its_start(
    login: ChangingLogin, broker_url: str
) -> None:
    settings = load(Settings, {"RABBITMQ_URL": broker_url, "POSTGRES_DSN_FILE": str(login.file)})
    postgres = ServiceRuntime(settings, service=GATEWAY, package="support.sample_service").postgres
    await postgres.open()
    async with postgres.connection():
        await login.change("after")
        login.write("after")
        # The only open connection is lent.
        async with postgres.connection() as second:
            assert await second.fetchval("SELECT current_user") == login.role
        assert await postgres.ping()
    await postgres.close()


async def test_a_service_migrates_with_a_password_that_was_changed_while_it_started(
    login: ChangingLogin, broker_url: str
) -> None:
    await login.admin.execute(f"GRANT ALL ON SCHEMA public TO {login.role}")
    settings = load(Settings, {"RABBITMQ_URL": broker_url, "POSTGRES_DSN_FILE": str(login.file)})
    runtime = ServiceRuntime(settings, service=GATEWAY, package="support.sample_service")
    await login.change("after")
    login.write("after")
    async with bench.running(runtime):
        assert await login.admin.fetchval("SELECT count(*) FROM outbox") == 0


async def test_a_login_between_the_change_in_the_server_and_in_the_file_waits_for_the_file(
    login: ChangingLogin,
) -> None:
    reads = 0

    def dsn() -> str:
        nonlocal reads
        reads += 1
        return login.file.read_text()

    async def use_another() -> str:
        async with postgres.connection() as second:
            return str(await second.fetchval("SELECT current_user"))

    postgres = Postgres(dsn)
    await postgres.open()
    async with postgres.connection():
        await login.change("after")
        reads = 0
        asking = asyncio.create_task(use_another())
        await until(lambda: reads > 1)
        login.write("after")
        assert await asking == login.role
    await postgres.close()


async def test_a_login_that_stays_refused_makes_the_database_unavailable(login: ChangingLogin) -> None:
    postgres = Postgres(login.file.read_text(), acquire_timeout_s=0.3)
    await postgres.open()
    async with postgres.connection():
        await login.change("after")
        with pytest.raises(DatabaseUnavailable):
            async with postgres.connection():
                pass
        assert "password" in (postgres.check() or "")
        # What is open goes on, also after a look whether the server answers.
        assert await postgres.ping()
    async with postgres.connection() as kept:
        assert await kept.fetchval("SELECT current_user") == login.role
    await postgres.close()


@pytest.fixture
async def broker_file(rabbitmq_server: RabbitMQ, broker_url: str, tmp_path: Path) -> AsyncIterator[Path]:
    """Yield the file with the gateway's address of the broker, which knows its old password afterwards."""
    file, address = tmp_path / "rabbitmq-url", rabbitmq_server.url_of(GATEWAY)
    file.write_text(address)
    yield file
    await rabbitmq_server.control("change_password", GATEWAY, URL(address).password or "")


def write_password(file: Path, password: str) -> None:
    """Change the password in the file, as `make rotate` does after the change in the broker."""
    file.write_text(str(URL(file.read_text()).with_password(password)))


async def test_a_service_connects_to_the_broker_with_a_password_that_was_changed_after_its_start(
    rabbitmq_server: RabbitMQ, broker_file: Path, fresh_database: FreshDatabase
) -> None:
    dsn = await fresh_database("support.sample_service")
    settings = load(Settings, {"RABBITMQ_URL_FILE": str(broker_file), "POSTGRES_DSN": dsn})
    runtime = ServiceRuntime(settings, service=GATEWAY, package="support.sample_service")
    async with bench.running(runtime):
        # What is open goes on with the old one.
        await rabbitmq_server.control("change_password", GATEWAY, "after")
        assert runtime.health.reasons() == {}
        links = (runtime.messaging.link, runtime.messaging.publisher.link)
        for link in links:
            link.interrupt()
        await until(lambda: all("refused" in (link.check() or "") for link in links))
        write_password(broker_file, "after")
        await until(lambda: runtime.health.reasons() == {}, what=lambda: str(runtime.health.reasons()))
