"""Modules that run as separate processes."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager


@asynccontextmanager
async def running_module(
    module: str, environment: Mapping[str, str], *, stdout: int | None = None, stderr: int | None = None
) -> AsyncIterator[Process]:
    """Yield the process of `module`; kill it if the block has not ended it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, env=environment, stdout=stdout, stderr=stderr
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
