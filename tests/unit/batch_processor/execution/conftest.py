"""Item processes with operations that do harm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from batch_processor.execution.process_pool import ProcessPool
from support import harmful_operation
from support.chunk_bench import OPTIONS, ChunkBench


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(harmful_operation.install(tmp_path / "plugins"))


@pytest.fixture
async def bench(installed: None) -> AsyncIterator[ChunkBench]:
    pool = ProcessPool(3, OPTIONS)
    watching = asyncio.create_task(pool.watch_forever())
    yield ChunkBench(pool)
    watching.cancel()
    await pool.close()
