"""The watch over the bootstrap key: what it measures last is true last."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import create_autospec

import pytest
from structlog.testing import capture_logs

from chassis.postgres import Postgres
from gateway.audit.service import AuditTrail
from gateway.identity import keys
from gateway.identity.bootstrap import BootstrapKey


async def test_a_look_that_takes_long_does_not_replace_what_a_later_one_has_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    double: Any = create_autospec
    bootstrap = BootstrapKey(
        double(Postgres),
        audit=double(AuditTrail),
        pepper="pepper",
        key=keys.new_key(),
    )
    answered, found = asyncio.Event(), iter([None, "it was revoked", "it was revoked"])

    async def refusal() -> str | None:
        reason = next(found)
        if reason is None:
            await answered.wait()
        return reason

    monkeypatch.setattr(bootstrap, "refusal", refusal)
    with capture_logs() as lines:
        early = asyncio.create_task(bootstrap.look())
        await asyncio.sleep(0)
        late = asyncio.create_task(bootstrap.look())
        await asyncio.sleep(0)
        answered.set()
        await asyncio.gather(early, late)
        await bootstrap.look()
    assert [line["reason"] for line in lines] == ["it was revoked"]
