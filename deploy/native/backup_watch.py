"""Watches for the backups that tasks of `database.backup` ask for, and starts the agent that makes them.

The agent is a process that runs for the length of a backup. Between backups there is only one connection,
with the rights of batch-processor, on which PostgreSQL notifies of requests.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

import asyncpg

from native.directories import MARKER
from native.stack import Blueprint

_REPOSITORY = Path(__file__).resolve().parents[2]
_CHANNEL = "backup_requests"
_IS_WANTED = "SELECT EXISTS (SELECT FROM backup_requests WHERE ended_at IS NULL AND began_at IS NULL)"
_AGAIN_AFTER_S = 5.0
_CONNECT_S = 10.0
# Time for the agent to remove an incomplete backup.
_UNDO_S = 10.0


async def watch(blueprint: Blueprint) -> None:
    """Start the agent whenever a backup is requested; a cancellation also stops a running agent."""
    while True:
        # These happen while PostgreSQL is away, or before batch-processor has made its tables.
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await _watch_connected(blueprint)
        await asyncio.sleep(_AGAIN_AFTER_S)


async def _watch_connected(blueprint: Blueprint) -> None:
    """Start the agent for each request, until the connection is lost or the agent fails."""
    connection = await asyncpg.connect(blueprint.postgres.dsn("batch_processor"), timeout=_CONNECT_S)
    try:
        told = asyncio.Event()
        await connection.add_listener(_CHANNEL, lambda *_: told.set())
        # Notifications are lost with their connection only.
        connection.add_termination_listener(lambda _: told.set())
        while True:
            told.clear()
            if not await connection.fetchval(_IS_WANTED, timeout=_CONNECT_S):
                await told.wait()
            elif await _serve(blueprint) != 0:
                return
    finally:
        connection.terminate()


async def _serve(blueprint: Blueprint) -> int:
    """Run the agent for the pending requests and return its exit code; its output is in `backup.log`."""
    run = blueprint.run
    words = ("--way", "native", "--run-dir", str(run.root), "backup-agent", "--once")
    path = os.pathsep.join(filter(None, (str(_REPOSITORY / "deploy"), os.environ.get("PYTHONPATH"))))
    with run.log("backup").open("ab") as log:
        agent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "upkeep", *words),
            cwd=_REPOSITORY,
            env=os.environ | {"PYTHONPATH": path, MARKER: str(run.root)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C reaches only the runner.
            start_new_session=True,
        )
    try:
        return await agent.wait()
    finally:
        if agent.returncode is None:
            agent.terminate()
            # What is left of it then is ended with the rest of the stack.
            await asyncio.wait({asyncio.create_task(agent.wait())}, timeout=_UNDO_S)
