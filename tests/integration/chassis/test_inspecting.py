"""The reports of a service for support and upgrades, requested as they are inside its container."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chassis import migrations
from support.databases import FreshDatabase

PASSWORD = "s3cret-of-the-broker"
Run = Callable[..., Any]


@asynccontextmanager
async def ops(readiness: str, metrics: str = "") -> AsyncIterator[int]:
    """Yield a listener as every service has one, with these answers; gives its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status, body = ("200 OK", metrics) if "/metrics" in head else (readiness, "{}")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def dsn(fresh_database: FreshDatabase) -> str:
    """Return the address of a database that the email service has brought up to date."""
    return await fresh_database("emailer")


@pytest.fixture
def run(dsn: str, tmp_path: Path) -> Run:
    """Call the program with the settings of an email service; gives exit code and output."""
    file = tmp_path / "rabbitmq-url"
    file.write_text(f"amqp://email:{PASSWORD}@127.0.0.1:5672/tickwire")

    async def call(*words: str, port: int = 9, text: str = "", **variables: str) -> tuple[int | None, str]:
        given = {"POSTGRES_DSN": dsn, "RABBITMQ_URL_FILE": str(file), "EMAIL_PORT": str(port)}
        given |= {"EMAIL_SMTP_HOST": "relay.example.com", "EMAIL_SMTP_PASSWORD": "of-the-relay"}
        path = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "chassis.inspecting", *words),
            env=path | given | variables,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(child.communicate(text.encode()), timeout=60)
        return child.returncode, output.decode()

    return call


def names(*, but: int = 0) -> str:
    """Return the migrations of this release, without the last `but` of the service's own."""
    own = [f"emailer/{one.name}" for one in migrations.collect("emailer")]
    shared = [f"chassis/{one.name}" for one in migrations.collect("chassis", "schema")]
    return "\n".join([*shared, *own[: len(own) - but]])


async def test_a_report_contains_diagnostics_and_no_secret(run: Run, dsn: str) -> None:
    async with ops("503 Service Unavailable", "tickwire_outbox_depth 7\n") as port:
        code, output = await run("report", "emailer", port=port)
    assert code == 0, output
    found = json.loads(output)
    assert found["readiness"].startswith("503 ")
    assert "tickwire_outbox_depth 7" in found["metrics"]
    assert "asyncpg" in found["versions"]["packages"]
    assert found["database"]["postgresql"][0].isdigit()
    assert "emailer/0001" in "".join(found["database"]["migrations"])
    assert "recipients" in [table["name"] for table in found["database"]["tables"]]
    settings = found["settings"]
    assert settings["EMAIL_SMTP_HOST"]["value"] == "relay.example.com"
    assert settings["EMAIL_WINDOW"]["from"] == "the default"
    assert settings["RABBITMQ_URL"]["from"].startswith("the file ")
    for secret in (PASSWORD, "of-the-relay", dsn):
        assert secret not in output


async def test_a_report_of_a_service_without_its_servers_names_the_missing_ones(run: Run) -> None:
    code, output = await run("report", "emailer", POSTGRES_DSN="postgresql://a:secret-of-a@127.0.0.1:9/a")
    assert code == 0, output
    found = json.loads(output)
    assert found["readiness"].startswith("no answer")
    assert found["database"].startswith("not known")
    assert "secret-of-a" not in output


async def test_wrong_settings_are_reported_in_place_of_the_report(run: Run) -> None:
    code, output = await run("report", "emailer", EMAIL_SMTP_TLS="perhaps")
    assert code == 1
    assert "EMAIL_SMTP_TLS" in output


async def test_a_check_names_all_that_is_wrong_and_unknown_and_opens_nothing(run: Run) -> None:
    away = "postgresql://emailer:secret-of-a@127.0.0.1:9/emailer"
    assert await run("check", "emailer", POSTGRES_DSN=away) == (0, "")
    wrong = {"EMAIL_SMTP_TLS": "perhaps", "LOG_LEVEL": "LOUD", "EMAIL_SMPT_HOST": "relay.example.com"}
    code, output = await run("check", "emailer", POSTGRES_DSN=f"{away}#x", **wrong)
    assert code == 2
    for name in ("EMAIL_SMTP_TLS", "LOG_LEVEL", "POSTGRES_DSN"):
        assert output.count(f"  {name}: ") == 1
        assert f"(for example {name}=" in output
    assert "unknown setting, ignored: EMAIL_SMPT_HOST; did you mean EMAIL_SMTP_HOST?\n" in output
    assert "secret-of-a" not in output


async def test_a_report_keeps_the_warnings_and_errors_of_processes_without_their_secrets(run: Run) -> None:
    lines = (
        "of nobody: an ERROR before any name",
        "== email",
        '{"level": "info", "event": "started"}',
        f'{{"level": "error", "event": "refused {PASSWORD}"}}',
        "== postgres",
        "2026-11-27 [1] FATAL:  no room, key tw_live_0123456789abcdef_ThisIsTheSecretPart",
        "== prometheus\n",
    )
    code, output = await run("report", "emailer", text="\n".join(lines))
    assert code == 0
    _, email, postgres, prometheus = re.split(r"^== .*\n", output, flags=re.MULTILINE)
    assert [one.count("\n") for one in (email, postgres, prometheus)] == [1, 1, 0]
    assert "refused" in email
    assert "FATAL" in postgres
    assert "of nobody" not in output
    assert PASSWORD not in output
    assert "ThisIsTheSecretPart" not in output


async def test_the_upgrade_check_names_pending_migrations(run: Run) -> None:
    async with ops("200 OK") as port:
        more = f"{names()}\nemailer/9999_add_something"
        code, output = await run("upgrade", "emailer", port=port, text=more)
    assert code == 0, output
    assert "1 pending emailer/9999_add_something" in output


async def test_the_rollback_check_names_the_migrations_that_stay(run: Run) -> None:
    async with ops("200 OK") as port:
        code, output = await run("upgrade", "emailer", port=port, text=names(but=1))
    assert code == 0, output
    last = migrations.collect("emailer")[-1].name
    assert f"the schema stays as it is: emailer/{last}" in output


@pytest.mark.parametrize(
    ("readiness", "age_s", "words", "reason"),
    [
        ("503 Service Unavailable", 0, (), "not ready: 503"),
        ("200 OK", 90_000, ("--asks-backup",), "no backup of the last 24 hours"),
        ("200 OK", 60, ("--asks-backup",), None),
        ("200 OK", 90_000, (), None),
    ],
)
async def test_an_upgrade_is_prevented_by_a_service_that_is_not_ready_or_a_backup_that_is_old(
    run: Run, readiness: str, age_s: float, words: tuple[str, ...], reason: str | None
) -> None:
    metrics = f"tickwire_last_backup_timestamp_seconds {time.time() - age_s}\n"
    async with ops(readiness, metrics) as port:
        code, output = await run("upgrade", "emailer", *words, port=port, text=names())
    assert (code, "first: " in output) == ((1, True) if reason else (0, False)), output
    assert reason is None or reason in output


async def test_an_upgrade_is_prevented_by_a_database_that_cannot_be_read(run: Run) -> None:
    async with ops("200 OK") as port:
        away = "postgresql://a:secret-of-a@127.0.0.1:9/a"
        code, output = await run("upgrade", "emailer", port=port, text=names(), POSTGRES_DSN=away)
    assert code == 1
    assert "the database cannot be read" in output
