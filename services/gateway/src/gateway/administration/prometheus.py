"""A bounded client of Prometheus' HTTP API (https://prometheus.io/docs/prometheus/latest/querying/api/)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Literal, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from chassis import redaction
from chassis.deadlines import Deadline
from gateway.administration.measurements import PrometheusAlert, Sample, Series
from gateway.errors import MonitoringUnavailable
from gateway.http.outgoing import read_within

A = TypeVar("A", bound=BaseModel)

_MOST_BYTES = 1 << 20
_CONNECTIONS = 4
_LONGEST_S = 10.0
_SHOWN = 200


class _Vector(BaseModel):
    result: list[Sample]


class _Matrix(BaseModel):
    result: list[Series]


class _Alerts(BaseModel):
    alerts: list[PrometheusAlert]


class _VectorAnswer(BaseModel):
    status: Literal["success"]
    data: _Vector


class _MatrixAnswer(BaseModel):
    status: Literal["success"]
    data: _Matrix


class _AlertsAnswer(BaseModel):
    status: Literal["success"]
    data: _Alerts


class _ErrorAnswer(BaseModel):
    error: str


class Prometheus:
    """Queries one Prometheus, at most four requests at once. All methods raise `MonitoringUnavailable`."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"accept": "application/json"},
            limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
            # The deadline of each query is the effective limit.
            timeout=_LONGEST_S,
            # It is on the same network: the proxies of the environment are not used.
            trust_env=False,
            verify=ssl.create_default_context() if url.startswith("https:") else False,
        )
        self._room = asyncio.Semaphore(_CONNECTIONS)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def now(self, query: str, deadline: Deadline) -> list[Sample]:
        """Return the series of `query` at this moment."""
        answer = await self._get("/api/v1/query", {"query": query}, _VectorAnswer, deadline)
        return answer.data.result

    async def over(
        self, query: str, *, start: int, end: int, step_s: int, deadline: Deadline
    ) -> list[Series]:
        """Return the series of `query` from `start` to `end` (Unix time), a sample every `step_s`."""
        asked = {"query": query, "start": str(start), "end": str(end), "step": str(step_s)}
        answer = await self._get("/api/v1/query_range", asked, _MatrixAnswer, deadline)
        return answer.data.result

    async def alerts(self, deadline: Deadline) -> list[PrometheusAlert]:
        """Return the alerts that are firing or pending."""
        answer = await self._get("/api/v1/alerts", {}, _AlertsAnswer, deadline)
        return answer.data.alerts

    async def _get(self, path: str, asked: Mapping[str, str], model: type[A], deadline: Deadline) -> A:
        try:
            async with (
                asyncio.timeout(deadline.remaining_s()),
                self._room,
                self._client.stream("GET", path, params=dict(asked)) as response,
            ):
                body = await read_within(response, _MOST_BYTES)
        except ValueError:
            raise MonitoringUnavailable(f"Prometheus sent more than {_MOST_BYTES} bytes.") from None
        except TimeoutError:
            raise MonitoringUnavailable("Prometheus did not answer in time.") from None
        except httpx.ConnectError:
            raise MonitoringUnavailable("Prometheus cannot be reached.") from None
        except httpx.HTTPError as error:
            raise MonitoringUnavailable(
                f"Prometheus closed the connection: {type(error).__name__}."
            ) from error
        if response.status_code != httpx.codes.OK:
            try:
                said = f": {redaction.text(_ErrorAnswer.model_validate_json(body).error)[:_SHOWN]}"
            except ValidationError:
                said = "."
            raise MonitoringUnavailable(f"Prometheus answered with status {response.status_code}{said}")
        try:
            return model.model_validate_json(body)
        except ValidationError:
            raise MonitoringUnavailable(
                "The server at GATEWAY_PROMETHEUS_URL does not answer as Prometheus does."
            ) from None
