"""Queries to a live Prometheus."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import httpx


class Watcher:
    """The HTTP API of one Prometheus."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def values(self, query: str) -> list[Mapping[str, Any]]:
        """Return the present result of `query`: labels (`metric`) and `value` of each series."""
        return list((await self._get("query", query=query))["result"])

    async def has_data(self, query: str, *, seconds: int = 60) -> bool:
        """Return whether a graph of `query` over the last `seconds` shows at least one point."""
        now = time.time()
        span = {"start": f"{now - seconds:.3f}", "end": f"{now:.3f}", "step": "3"}
        found = await self._get("query_range", query=query, **span)
        return any(
            not math.isnan(float(value)) for series in found["result"] for _, value in series["values"]
        )

    async def firing(self) -> set[tuple[str, str]]:
        """Return name and service of each alert that fires."""
        alerts = (await self._get("alerts"))["alerts"]
        return {
            (alert["labels"]["alertname"], alert["labels"].get("service", ""))
            for alert in alerts
            if alert["state"] == "firing"
        }

    async def alerts(self, name: str) -> list[Mapping[str, Any]]:
        """Return the alerts of one name that fire, as Prometheus lists them."""
        found = (await self._get("alerts"))["alerts"]
        return [a for a in found if a["state"] == "firing" and a["labels"]["alertname"] == name]

    async def rules(self) -> list[Mapping[str, Any]]:
        """Return every rule, with its `health` and `lastError`."""
        groups = (await self._get("rules"))["groups"]
        return [rule for group in groups for rule in group["rules"]]

    async def targets(self) -> Mapping[str, str]:
        """Return the health of each target, by job and service."""
        found = (await self._get("targets"))["activeTargets"]
        return {f"{t['labels']['job']}/{t['labels']['service']}": t["health"] for t in found}

    async def exemplars(self, query: str) -> list[Mapping[str, str]]:
        """Return the labels of the exemplars of `query` within the last five minutes."""
        now = time.time()
        found = await self._get(
            "query_exemplars", query=query, start=f"{now - 300:.0f}", end=f"{now + 1:.0f}"
        )
        return [exemplar["labels"] for series in found for exemplar in series["exemplars"]]

    async def _get(self, path: str, **parameters: str) -> Any:
        response = await self._client.get(f"/api/v1/{path}", params=parameters)
        document = response.json()
        assert document["status"] == "success", (parameters, document)
        return document["data"]
