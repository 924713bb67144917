"""Whatever stops the event loop is found in the log."""

from __future__ import annotations

import gc

import pytest

from chassis.watchdog import Watchdog
from support.background import in_background
from support.waiting import until


async def test_a_long_garbage_collection_is_logged_with_its_generation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("chassis.watchdog.LONG_COLLECTION_S", 0)
    before, seen = len(gc.callbacks), list[str]()

    def is_logged() -> bool:
        gc.collect()
        seen.extend(capsys.readouterr())
        text = "".join(seen)
        return "a garbage collection stopped the process" in text and "generation=2" in text

    async with in_background(Watchdog().run()):
        await until(is_logged)
    assert len(gc.callbacks) == before
