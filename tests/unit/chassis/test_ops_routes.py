"""The ops listener's answers to proxies and orchestrators."""

from __future__ import annotations

import httpx

from chassis.health import STARTUP, Health
from chassis.ops import ops_app


async def codes(health: Health) -> dict[str, int]:
    paths = ("/livez", "/readyz", "/readyz/shutdown")
    transport = httpx.ASGITransport(app=ops_app(health))
    async with httpx.AsyncClient(transport=transport, base_url="http://ops") as ops:
        return {path: (await ops.get(path)).status_code for path in paths}


async def test_a_proxy_keeps_a_gateway_whose_broker_is_away_and_leaves_one_that_stops() -> None:
    health = Health()
    assert await codes(health) == {"/livez": 200, "/readyz": 200, "/readyz/shutdown": 200}
    health.add("broker-publish", lambda: "connecting")
    assert await codes(health) == {"/livez": 200, "/readyz": 503, "/readyz/shutdown": 200}
    health.draining = True
    assert await codes(health) == {"/livez": 200, "/readyz": 503, "/readyz/shutdown": 503}


async def test_a_proxy_sends_nothing_to_a_gateway_that_has_not_prepared_its_database_yet() -> None:
    health, reasons = Health(), ["preparing the database", None]
    health.add(STARTUP, lambda: reasons[0])
    assert await codes(health) == {"/livez": 200, "/readyz": 503, "/readyz/shutdown": 503}
    del reasons[0]
    assert await codes(health) == {"/livez": 200, "/readyz": 200, "/readyz/shutdown": 200}
