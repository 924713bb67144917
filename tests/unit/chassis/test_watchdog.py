"""Whatever stops the event loop is found in the log."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from typing import Any

import pytest

from chassis import watchdog
from support.background import in_background
from support.waiting import until


class Log:
    """Keeps what is logged; what pytest captures depends on who has logged first."""

    def __init__(self) -> None:
        self.warnings: list[tuple[str, dict[str, Any]]] = []
        self.errors: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.warnings.append((event, fields))

    def error(self, event: str, **fields: Any) -> None:
        """Keep it: on a slow machine these collections hold up the loop, too."""
        self.errors.append((event, fields))


async def test_a_long_garbage_collection_is_logged_with_its_generation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watchdog, "LONG_COLLECTION_S", 0)
    monkeypatch.setattr(watchdog, "log", log := Log())
    before = len(gc.callbacks)

    def is_logged() -> bool:
        gc.collect()
        return any(
            event == "a garbage collection stopped the process" and fields["generation"] == 2
            for event, fields in log.warnings
        )

    async with in_background(watchdog.Watchdog().run()):
        await until(is_logged)
    assert len(gc.callbacks) == before


class LocalObject:
    """What a function has in hand."""


async def test_what_a_blocked_function_had_in_hand_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "log", log := Log())
    dog = watchdog.Watchdog(stall_s=0.1)

    def block() -> weakref.ref[LocalObject]:
        held = LocalObject()
        deadline = time.monotonic() + 30
        while not log.errors and time.monotonic() < deadline:
            time.sleep(0.01)
        return weakref.ref(held)

    async with in_background(dog.run()):
        await asyncio.sleep(0)
        seen = block()
        assert log.errors
        await until(lambda: seen() is None)
