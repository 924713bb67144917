"""Each server is started, used and stopped, and no process is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import smtplib
from email.message import EmailMessage
from pathlib import Path

import aiormq
import asyncpg
import httpx
import psutil
import pytest
from aiormq.abc import AbstractConnection
from aiormq.exceptions import ChannelAccessRefused

from native import leftovers, memcached, postgres, prometheus, rabbitmq, supervisor
from native.directories import RunDirectory
from native.errors import NativeError
from native.mailbox import server as mailbox
from native.ports import Ports
from native.postgres import NEXT_OF_SUPERUSER, PostgresServer
from native.rabbitmq import RabbitMQ


async def test_memcached_keeps_a_value(tmp_path: Path) -> None:
    async with memcached.start(tmp_path) as server:
        host, port = server.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"set k 0 0 1\r\nx\r\nget k\r\n")
        assert await reader.readuntil(b"END\r\n") == b"STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\n"
        writer.close()
        await writer.wait_closed()
    assert leftovers.find(tmp_path) == []


async def test_prometheus_scrapes_itself(tmp_path: Path) -> None:
    async with prometheus.start(tmp_path) as server, httpx.AsyncClient(base_url=server.url) as client:
        async with asyncio.timeout(15):
            while not await _up(client):
                await asyncio.sleep(0.2)
    assert leftovers.find(tmp_path) == []


async def _up(client: httpx.AsyncClient) -> bool:
    answer = await client.get("/api/v1/query", params={"query": 'up{service="prometheus"} == 1'})
    return bool(answer.json()["data"]["result"])


async def test_a_database_belongs_to_its_role_alone(tmp_path: Path) -> None:
    async with postgres.start(tmp_path) as server:
        connection = await asyncpg.connect(server.dsn("gateway"))
        await connection.execute("CREATE TABLE mine (id int)")
        await connection.close()
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(server.dsn("gateway"), database="emailer")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.dsn("gateway"), password="wrong")
        extra = await asyncpg.connect(await server.create_database("extra"))
        await extra.close()
    assert leftovers.find(tmp_path) == []


async def test_a_second_start_finds_the_data_of_the_first(tmp_path: Path) -> None:
    server = PostgresServer(RunDirectory.at(tmp_path), Ports.free(), fast=True)
    try:
        await _write_and_die(server)
        assert (server.cluster.data / "postmaster.pid").exists()
        async with postgres.start(tmp_path, server.ports) as again:
            connection = await asyncpg.connect(again.dsn("emailer"))
            assert await connection.fetchval("SELECT 1 FROM kept") == 1
            await connection.close()
    finally:
        server.cluster.remove()


async def test_the_password_of_a_rotation_that_was_killed_is_found_at_the_next_start(tmp_path: Path) -> None:
    server = PostgresServer(RunDirectory.at(tmp_path), Ports.free(), fast=True)
    try:
        async with supervisor.running(server.run.root, server.stages):
            connection = await asyncpg.connect(server.url)
            await connection.execute("ALTER ROLE postgres PASSWORD 'the next one'")
            await connection.close()
        (server.run.secrets / NEXT_OF_SUPERUSER).write_text("the next one")
        async with postgres.start(tmp_path, server.ports) as again:
            await (await asyncpg.connect(again.url)).close()
        assert (server.run.secrets / "postgres-postgres").read_text() == "the next one"
    finally:
        server.cluster.remove()


async def _write_and_die(server: PostgresServer) -> None:
    """Leave the cluster as after a power failure: its lock file has the process id of another program."""
    async with supervisor.running(server.run.root, server.stages):
        connection = await asyncpg.connect(server.dsn("emailer"))
        await connection.execute("CREATE TABLE kept AS SELECT 1")
        await connection.close()
    (server.cluster.data / "postmaster.pid").write_text(f"{os.getpid()}\n{server.cluster.data}\n")


@pytest.mark.root
async def test_a_directory_that_the_server_user_cannot_enter_is_no_obstacle(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root runs PostgreSQL as another user")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    async with postgres.start(closed / "run dir") as server:
        assert server.cluster.moved
        home = server.cluster.home
        assert home.stat().st_mode & 0o777 == 0o700
    assert not home.exists()


async def test_rabbitmq_has_the_service_users_and_nobody_else(tmp_path: Path) -> None:
    directory = tmp_path / "with space"
    async with rabbitmq.start(directory, fast=False) as server:
        users = {line.split("\t")[0] for line in (await server.control("-q", "list_users")).splitlines()[1:]}
        assert users == {"admin", "gateway", "stock-data", "email", "batch-processor"}
        await _round_trip(server.url)
        connection = await aiormq.connect(server.url_of("email"))
        await connection.close()
        with pytest.raises(NativeError, match="rabbitmqctl no_such_command failed"):
            await server.control("no_such_command")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.control("eval", "timer:sleep(60000)."), 3)
        # With this handler its stop would take 5 s more.
        hooks = await server.control("eval", "gen_event:which_handlers(rabbit_event).")
        assert "rabbit_channel_tracking_handler" in hooks
        assert "rabbit_mgmt_db_handler" not in hooks
        assert not [child for child in psutil.Process().children(recursive=True) if _evaluates(child)]
        async with httpx.AsyncClient() as client:
            assert "rabbitmq_identity_info" in (await client.get(server.metrics_url)).text
    assert leftovers.find(directory) == []


def _evaluates(process: psutil.Process) -> bool:
    # What has ended may not be waited for yet.
    with contextlib.suppress(psutil.NoSuchProcess):
        return "eval" in process.cmdline()
    return False


async def test_rights_of_another_release_come_with_an_import_or_a_start(tmp_path: Path) -> None:
    """As docs/guides/upgrade.md says; in the release before, email may publish no events."""
    now = json.loads(rabbitmq.DEFINITIONS.read_text())
    narrowed = {"email": {"write": "^email$"}}
    rights = [right | narrowed.get(right["user"], {}) for right in now["permissions"]]
    before = tmp_path / "before.json"
    before.write_text(json.dumps(now | {"permissions": rights}))
    async with rabbitmq.start(tmp_path / "run", definitions=before, fast=False) as server:
        connection = await aiormq.connect(server.url_of("email"))
        with pytest.raises(ChannelAccessRefused):
            await _publish(connection, "events", "email.delivered")
        await _publish(connection, "email", "email.parked")
        await server.control("import_definitions", str(_with_passwords(server, tmp_path / "imported.json")))
        # The connection goes on; so do the queue and what waits in it.
        await _publish(connection, "events", "email.delivered")
        channel = await connection.channel()
        assert (await channel.queue_declare("email.parked", passive=True)).message_count == 1
        await connection.close()
    async with rabbitmq.start(tmp_path / "run", definitions=before) as server:
        connection = await aiormq.connect(server.url_of("email"))
        with pytest.raises(ChannelAccessRefused):
            await _publish(connection, "events", "email.delivered")
        await connection.close()


def _with_passwords(server: RabbitMQ, file: Path) -> Path:
    """Write this release's definitions with the passwords of the stack that runs, as `make-secrets` does."""
    users = (*rabbitmq.SERVICE_USERS, rabbitmq.ADMIN)
    passwords = {user: server.run.secret(f"rabbitmq-{user}") for user in users}
    now = json.loads(rabbitmq.DEFINITIONS.read_text())
    file.write_text(json.dumps(rabbitmq.with_users(now, passwords)))
    return file


async def _publish(connection: AbstractConnection, exchange: str, routing_key: str) -> None:
    channel = await connection.channel(publisher_confirms=True)
    await channel.basic_publish(b"{}", exchange=exchange, routing_key=routing_key)


async def _round_trip(url: str) -> None:
    connection = await aiormq.connect(url)
    channel = await connection.channel()
    queue = (
        await channel.queue_declare("round-trip", durable=True, arguments={"x-queue-type": "quorum"})
    ).queue
    await channel.basic_publish(b"hello", routing_key=str(queue))
    message = await channel.basic_get(str(queue), no_ack=True)
    assert message.body == b"hello"
    await connection.close()


async def test_the_mailbox_shows_mails_that_came_by_smtp(tmp_path: Path) -> None:
    async with mailbox.start(tmp_path) as box, httpx.AsyncClient(base_url=box.url) as client:
        await asyncio.to_thread(_send, box.smtp, "bob@example.org")
        newest = (await client.get("/api/v1/message/latest")).json()
        assert (newest["Subject"], newest["Text"].strip()) == ("Grüße", "Hello")
    assert leftovers.find(tmp_path) == []


async def test_the_mailbox_plays_the_script_of_the_recipient(tmp_path: Path) -> None:
    async with mailbox.start(tmp_path) as box, httpx.AsyncClient(base_url=box.url) as client:
        for recipient, code in (("reject550", 550), ("defer451", 451), ("greylist", 451)):
            with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
                await asyncio.to_thread(_send, box.smtp, f"{recipient}@example.org")
            assert refused.value.recipients[f"{recipient}@example.org"][0] == code
        with pytest.raises(smtplib.SMTPDataError, match="554"):
            await asyncio.to_thread(_send, box.smtp, "datareject554@example.org")
        with pytest.raises(smtplib.SMTPServerDisconnected):
            await asyncio.to_thread(_send, box.smtp, "dropbefore@example.org")
        assert (await client.get("/api/v1/messages")).json()["total"] == 0
        with pytest.raises(smtplib.SMTPServerDisconnected):
            await asyncio.to_thread(_send, box.smtp, "dropafter@example.org")
        await asyncio.to_thread(_send, box.smtp, "greylist@example.org")
        assert (await client.get("/api/v1/messages")).json()["total"] == 2


def _send(smtp: tuple[str, int], recipient: str, *, timeout_s: float = 10) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "ada@example.org", recipient, "Grüße"
    message.set_content("Hello")
    with smtplib.SMTP(*smtp, timeout=timeout_s) as client:
        client.send_message(message)


async def test_the_mailbox_plays_scripts_and_keeps_mail_over_a_restart(tmp_path: Path) -> None:
    async with mailbox.start(tmp_path) as box, httpx.AsyncClient(base_url=box.url) as client:
        scripts = [
            {"to": "ada@*", "action": "fail", "code": 552, "text": "5.2.2 full", "times": 1},
            {"to": "bob@*", "action": "defer", "stage": "data"},
            {"to": "cut@*", "action": "drop"},
            {"to": "lost@*", "action": "drop", "stage": "data"},
            {"to": "slow@*", "action": "slow", "seconds": 60},
            {"to": "late@*", "action": "slow", "seconds": 0.1},
        ]
        answer = await client.put("/api/v1/scripts", json={"scripts": scripts})
        assert [script["code"] for script in answer.json()["scripts"]] == [552, 450, 0, 0, 0, 0]
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            await asyncio.to_thread(_send, box.smtp, "ada@example.org")
        assert refused.value.recipients["ada@example.org"] == (552, b"5.2.2 full")
        with pytest.raises(smtplib.SMTPDataError, match="450"):
            await asyncio.to_thread(_send, box.smtp, "bob@example.org")
        with pytest.raises(smtplib.SMTPServerDisconnected):
            await asyncio.to_thread(_send, box.smtp, "cut@example.org")
        assert (await client.get("/api/v1/messages")).json()["total"] == 0
        with pytest.raises(smtplib.SMTPServerDisconnected):
            await asyncio.to_thread(_send, box.smtp, "lost@example.org")
        with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"):
            await asyncio.to_thread(_send, box.smtp, "slow@example.org", timeout_s=2)
        await asyncio.to_thread(_send, box.smtp, "late@example.org")
        await asyncio.to_thread(_send, box.smtp, "ada@example.org")
        assert len((await client.get("/api/v1/scripts")).json()["scripts"]) == 5
        assert (await client.put("/api/v1/scripts", json=[])).status_code == 400
        before = (await client.get("/api/v1/messages")).json()["messages"]
        await client.request("DELETE", "/api/v1/messages", json={"IDs": [before[-1]["ID"]]})
    async with mailbox.start(tmp_path) as box, httpx.AsyncClient(base_url=box.url) as client:
        after = (await client.get("/api/v1/messages")).json()["messages"]
        assert [message["ID"] for message in after] == [message["ID"] for message in before[:-1]]
        assert [message["To"][0]["Address"] for message in after] == ["ada@example.org", "late@example.org"]
