"""The migrations' own entry point, as a Job runs it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import asyncpg

from support.databases import FreshDatabase


async def start(*arguments: str, **variables: str) -> asyncio.subprocess.Process:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), **variables}
    command = (sys.executable, "-m", "chassis.migrating", *arguments)
    return await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )


async def run(*arguments: str, **variables: str) -> tuple[int | None, str]:
    child = await start(*arguments, **variables)
    output = await asyncio.wait_for(child.communicate(), timeout=30)
    return child.returncode, output[0].decode()


async def test_a_database_is_brought_up_to_date_once(fresh_database: FreshDatabase, tmp_path: Path) -> None:
    dsn = await fresh_database()
    file = tmp_path / "postgres-dsn"
    file.write_text(f"{dsn}\n")
    code, output = await run("support.sample_service", POSTGRES_DSN_FILE=str(file))
    assert code == 0, output
    assert "0001_create_effects" in output
    again, output = await run("support.sample_service", POSTGRES_DSN=dsn)
    assert again == 0
    assert '"applied":[]' in output
    connection = await asyncpg.connect(dsn)
    try:
        assert (
            await connection.fetchval(
                "SELECT count(*) FROM migrations WHERE package = 'support.sample_service'"
            )
            == 1
        )
    finally:
        await connection.close()


async def test_two_migrators_at_the_same_time_apply_each_migration_once(
    fresh_database: FreshDatabase,
) -> None:
    dsn = await fresh_database()
    ends = await asyncio.gather(*[run("support.sample_service", POSTGRES_DSN=dsn) for _ in range(2)])
    assert [code for code, _ in ends] == [0, 0]
    assert sum(output.count('"migration":"0001_create_effects"') for _, output in ends) == 1


async def test_an_unreachable_database_exits_with_1(unused_tcp_port: int) -> None:
    dsn = f"postgresql://nobody:x@127.0.0.1:{unused_tcp_port}/nowhere"
    code, output = await run("support.sample_service", POSTGRES_DSN=dsn)
    assert code == 1
    assert "migration failed" in output


async def test_a_database_that_is_still_being_created_is_waited_for(fresh_database: FreshDatabase) -> None:
    made = await fresh_database()
    server, _ = made.rsplit("/", 1)
    child = await start("support.sample_service", "--wait", "20", POSTGRES_DSN=f"{server}/made_later")
    connection = await asyncpg.connect(made)
    try:
        assert child.stdout is not None
        assert b"waiting for the database" in await asyncio.wait_for(child.stdout.readline(), timeout=20)
        await connection.execute("CREATE DATABASE made_later")
        output, _ = await asyncio.wait_for(child.communicate(), timeout=30)
        assert child.returncode == 0, output
    finally:
        await connection.execute("DROP DATABASE IF EXISTS made_later WITH (FORCE)")
        await connection.close()


async def test_wrong_usage_exits_with_2() -> None:
    assert (await run("support.sample_service"))[0] == 2
    assert (await run(POSTGRES_DSN="postgresql://x@127.0.0.1/x"))[0] == 2
