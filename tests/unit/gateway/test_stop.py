"""The order in which a gateway stops, once its listeners have closed."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import documents
from gateway.resources import Resources


async def test_connections_leave_in_their_turns_then_the_gateway_and_then_the_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resources, order = Resources(documents.settings()), list[str]()

    def note(name: str) -> Any:
        async def step(**_: object) -> None:
            order.append(name)

        return step

    monkeypatch.setattr(resources.runtime, "open", note("open"))
    monkeypatch.setattr(resources.runtime.tasks, "supervise", lambda *_: None)
    monkeypatch.setattr(resources.loop_turns, "finish", note("turns of owners"))
    monkeypatch.setattr(resources.presence, "take_leave", note("farewell"))
    monkeypatch.setattr(resources.runtime, "close", note("close"))
    async with resources.open():
        order.append("serve")
    assert order == ["open", "serve", "turns of owners", "farewell", "close"]
