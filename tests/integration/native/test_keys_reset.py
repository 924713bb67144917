"""`make keys-reset` makes a new administrator's key when none works any more."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import asyncpg

from card.asking import why_key_fails
from native import runner, stack
from native.ports import VARIABLES
from native.stack import Stack

DEPLOY = str(Path(__file__).resolve().parents[3] / "deploy")


async def keys_reset(running: Stack, *arguments: str) -> tuple[int | None, str]:
    ports = {VARIABLES[name]: str(number) for name, number in running.ports.numbered().items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "upkeep", "--way", "native"),
        *("--run-dir", str(running.blueprint.run.root), "keys-reset", *arguments),
        env=os.environ | ports | {"PYTHONPATH": DEPLOY},
        stdout=PIPE,
        stderr=STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def refusal(running: Stack) -> str | None:
    return await asyncio.to_thread(why_key_fails, running.url, running.api_key)


async def test_a_new_key_takes_the_place_of_one_that_does_not_work(tmp_path: Path) -> None:
    servers = {"services": ("gateway",), "without": ("prometheus", "mailbox")}
    async with stack.start(tmp_path / ".run", **servers) as running:  # type: ignore[arg-type]
        lost = running.api_key
        code, output = await keys_reset(running)
        assert (code, "start the stack first (`make run`" in output) == (1, True)
        with runner.ownership(running.blueprint.run):
            connection = await asyncpg.connect(running.postgres.dsn("gateway"))
            await connection.execute("UPDATE api_keys SET revoked_at = now()")
            assert "HTTP 401" in (await refusal(running) or "")

            code, output = await keys_reset(running)
            assert code == 0, output
            found = running.api_key
            assert found != lost
            assert found in output
            assert running.blueprint.run.api_key.stat().st_mode & 0o777 == 0o600
            assert await refusal(running) is None

            code, output = await keys_reset(running, "--revoke-others")
            assert code == 0, output
            usable = "SELECT id FROM api_keys WHERE revoked_at IS NULL"
            assert await connection.fetchval(usable) == running.api_key[8:24]
            await connection.close()
        # The file is the bootstrap key of the next start.
        await running.restart("gateway")
        assert await refusal(running) is None
        assert "bootstrap key does not work" not in running.log("gateway")
