"""Prints what support and upgrades must know of a service: `python -m chassis.inspecting <verb> <package>`.

Run inside the service's own container, which has its settings and secrets; `deploy/containers/upkeep` does it
in all of them. What it prints holds no secret.

`check` reads the settings and opens nothing. It prints everything that is wrong with them and the variables
that are unknown; the exit code is 2 when something is wrong. Compose does the same before anything starts.

`report` prints as JSON: versions, settings with where they come from, readiness, alerts, the database and the
metrics. It reads the logs of processes, each below a line `== <process>`, and prints the warnings and errors
among them below the same lines. `upgrade` reads the names of the migrations of another release
(`<package>/<name>`, one a line) and prints what that release would apply and what prevents it; the exit code
is 1 when something does.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import platform
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from http.client import HTTPException
from importlib import metadata
from typing import Any

import asyncpg

from chassis import queries, redaction, settings
from chassis.settings import InvalidSettings, Settings

_SQL = queries.of("chassis")
_MOST_LINES = 400
_TIMEOUT_S = 10
_BACKUP_S = 24 * 3600
_BAD = re.compile(
    r'"level": ?"(warning|error|critical)"|\b(WARNING|ERROR|FATAL|PANIC|CRITICAL)\b', re.IGNORECASE
)
_MARK = re.compile(r"^== ([a-z-]+)\n", re.MULTILINE)
_BACKUP = re.compile(r"^tickwire_last_backup_timestamp_seconds (\S+)", re.MULTILINE)
_UNREADABLE = (OSError, asyncpg.PostgresError, TimeoutError)
_SECRET = re.compile(r"PASSWORD|SECRET|PEPPER|KEY|TOKEN|DSN|RABBITMQ_URL", re.IGNORECASE)
# A neighbour in the same container or network: no proxy of the environment leads there.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main(arguments: Sequence[str] | None, environ: Mapping[str, str]) -> int:
    """Run a verb of the command line, `check`, `report` or `upgrade`; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chassis.inspecting", description=__doc__)
    parser.add_argument("verb", choices=("check", "report", "upgrade"))
    parser.add_argument("package", help="gateway, stock_data, emailer or batch_processor")
    parser.add_argument("--asks-backup", action="store_true", help="upgrade: only with a backup of today")
    options = parser.parse_args(arguments)
    queries.load("chassis")
    model = model_of(options.package)
    if options.verb == "check":
        settings.load_or_exit(model)
        return 0
    try:
        loaded = settings.load(model, environ)
    except InvalidSettings as error:
        sys.stderr.write(f"{redaction.text(str(error))}\n")
        return 1
    redaction.remember(settings.secrets(loaded))
    if options.verb == "report":
        found = asyncio.run(_report(loaded, environ))
        sys.stdout.write(f"{json.dumps(_without_secrets(found), indent=1)}\n")
        _, *parts = _MARK.split("" if sys.stdin.isatty() else sys.stdin.read())
        for process, lines in zip(parts[::2], parts[1::2], strict=True):
            bad = (f"{redaction.text(line)}\n" for line in bad_lines(lines.splitlines()))
            sys.stdout.write(f"== {process}\n{''.join(bad)}")
        return 0
    wanted = sys.stdin.read().split()
    notes, problems = asyncio.run(check_upgrade(loaded, wanted, asks_backup=options.asks_backup))
    sys.stdout.write("".join(f"{options.package}: {note}\n" for note in notes))
    sys.stdout.write("".join(f"first: {options.package}: {problem}\n" for problem in problems))
    return 1 if problems else 0


def model_of(package: str) -> type[Settings]:
    """Return the settings class of a service's package."""
    found = vars(importlib.import_module(f"{package}.settings")).values()
    (model,) = (
        each
        for each in found
        if isinstance(each, type) and issubclass(each, Settings) and each is not Settings
    )
    return model


def describe(
    model: type[Settings], given: Mapping[str, str], *, dotenv: Iterable[str] = ()
) -> dict[str, dict[str, str]]:
    """Return each setting with its value, masked where it is a secret, and where it comes from."""
    found = {}
    for name, field in model.model_fields.items():
        key = settings.variable(model, name, field)
        if given.get(f"{key}_FILE"):
            found[key] = {"value": redaction.REDACTED, "from": f"the file {given[f'{key}_FILE']}"}
        elif key in given:
            value = redaction.REDACTED if _SECRET.search(key) else given[key]
            origin = ".env" if key in dotenv else "the environment, or the way of running"
            found[key] = {"value": value, "from": origin}
        else:
            found[key] = {"value": str(field.get_default()), "from": "the default"}
    return found


def secret_values(given: Mapping[str, str]) -> set[str]:
    """Return the values of those variables that hold a secret, by their names."""
    return {value for name, value in given.items() if _SECRET.search(name) and not name.endswith("_FILE")}


def bad_lines(lines: Iterable[str]) -> list[str]:
    """Return the last 400 warnings and errors among `lines`."""
    return [line.rstrip("\n") for line in lines if _BAD.search(line)][-_MOST_LINES:]


async def check_upgrade(
    loaded: Settings, wanted: Sequence[str], *, asks_backup: bool
) -> tuple[list[str], list[str]]:
    """Return notes on an upgrade to a release with the migrations `wanted`, and the problems that prevent it.

    The notes tell how many migrations are pending and how many messages are parked. A problem is a service
    that is not ready, a database that cannot be read or, with `asks_backup`, no backup of the last 24 hours.
    """
    problems = []
    readiness = _ask(_ops_url(loaded, "/readyz"))
    if not readiness.startswith("200 "):
        problems.append(f"not ready: {readiness}")
    backup = _BACKUP.search(_metrics(loaded)) if asks_backup else None
    if backup and time.time() - float(backup[1]) > _BACKUP_S:
        problems.append("there is no backup of the last 24 hours: make backup")
    try:
        async with _connected(loaded) as connection:
            applied, parked = await _migrations_and_parked(connection)
    except _UNREADABLE as error:
        return [], [*problems, f"the database cannot be read: {redaction.safe_message(error)}"]
    pending = [name for name in wanted if name not in applied]
    later = [name for name in applied if name not in wanted]
    notes = [f"{len(applied)} migrations applied, {len(pending)} pending {' '.join(pending)}".rstrip()]
    if later:
        notes.append(f"this is a way back, the schema stays as it is: {' '.join(later)}")
    if parked:
        notes.append(f"{parked} messages are parked; they stay so")
    return notes, problems


def _without_secrets(found: Any) -> Any:
    # Text by text: what is taken out of a whole document may be a part of its form.
    if isinstance(found, dict):
        return {name: _without_secrets(part) for name, part in found.items()}
    if isinstance(found, list):
        return [_without_secrets(part) for part in found]
    return redaction.text(found) if isinstance(found, str) else found


async def _report(loaded: Settings, environ: Mapping[str, str]) -> dict[str, Any]:
    # A setting of the gateway alone; the address may hold a password.
    prometheus = getattr(loaded, "prometheus_url", None)
    alerts = f"{prometheus.get_secret_value().rstrip('/')}/api/v1/alerts" if prometheus else ""
    # At once: what does not answer is waited for once.
    readiness, firing, metrics, database = await asyncio.gather(
        asyncio.to_thread(_ask, _ops_url(loaded, "/readyz")),
        asyncio.to_thread(_ask, alerts),
        asyncio.to_thread(_metrics, loaded),
        _database(loaded),
    )
    return {
        "versions": {
            "machine": platform.platform(),
            "python": platform.python_version(),
            "packages": {one.metadata["Name"]: one.version for one in metadata.distributions()},
        },
        "settings": describe(type(loaded), environ),
        "readiness": readiness,
        "alerts": firing if alerts else "asked by the gateway",
        "database": database,
        "metrics": metrics.splitlines(),
    }


async def _database(loaded: Settings) -> dict[str, Any] | str:
    try:
        async with _connected(loaded) as connection:
            applied, parked = await _migrations_and_parked(connection)
            version = await connection.fetchval(_SQL["read_version"])
            tables = [dict(row) for row in await connection.fetch(_SQL["size_tables"])]
    except _UNREADABLE as error:
        return f"not known: {redaction.safe_message(error)}"
    return {"postgresql": version, "migrations": applied, "parked": parked, "tables": tables}


async def _migrations_and_parked(
    connection: asyncpg.Connection[asyncpg.Record],
) -> tuple[list[str], int]:
    rows = await connection.fetch(_SQL["list_applied"])
    parked = int(await connection.fetchval(_SQL["count_all_parked"]))
    return [f"{row['package']}/{row['name']}" for row in rows], parked


@asynccontextmanager
async def _connected(loaded: Settings) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    dsn = loaded.postgres_dsn.get_secret_value()
    connection = await asyncpg.connect(dsn, timeout=_TIMEOUT_S, command_timeout=_TIMEOUT_S)
    try:
        yield connection
    finally:
        await connection.close()


def _ops_url(loaded: Settings, path: str) -> str:
    # The gateway has a listener of its own for this, the others their only one.
    port = getattr(loaded, "ops_port", None) or loaded.model_dump()["port"]
    return f"http://127.0.0.1:{port}{path}"


def _metrics(loaded: Settings) -> str:
    return _ask(_ops_url(loaded, "/metrics")).removeprefix("200 ")


def _ask(url: str) -> str:
    try:
        with _OPENER.open(url, timeout=_TIMEOUT_S) as answer:
            return f"{answer.status} {answer.read().decode(errors='replace')}"
    except urllib.error.HTTPError as error:
        with error:
            return f"{error.code} {error.read().decode(errors='replace')}"
    except (OSError, HTTPException, ValueError) as error:
        return f"no answer: {redaction.safe_message(error)}"


if __name__ == "__main__":
    raise SystemExit(main(None, os.environ))
