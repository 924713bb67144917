"""The FastAPI side that services share: the ops routes, and errors answered as problem documents."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from chassis import logging, metrics
from chassis.errors import InvalidInput, ServiceError
from chassis.health import Health
from chassis.problems import PROBLEM, field_errors, problem, problem_headers

log = logging.get(__name__)


def ops_routes(health: Health) -> FastAPI:
    """Return an application with `/livez`, `/readyz`, `/readyz/shutdown` and `/metrics` only."""
    app = FastAPI(title="ops", openapi_url=None)
    add_ops_routes(app, health)
    return app


def add_ops_routes(app: FastAPI, health: Health) -> None:
    """Add `/livez` (the process runs), `/readyz` (it can work; if not, why) and `/metrics` to `app`.

    `/readyz/shutdown` is the one check that a proxy should follow: 503 from the moment that a stop begins.
    While a dependency is away every replica is not ready, and what still works would be refused, too.
    """

    @app.get("/livez")
    async def livez() -> Response:
        failures = health.failures()
        body = {"status": "failed", "reasons": failures} if failures else {"status": "alive"}
        return Response(orjson.dumps(body), 503 if failures else 200, media_type="application/json")

    @app.get("/readyz")
    async def readyz() -> Response:
        reasons = health.reasons()
        body = {"status": "not ready" if reasons else "ready", "reasons": reasons}
        return Response(orjson.dumps(body), 503 if reasons else 200, media_type="application/json")

    @app.get("/readyz/shutdown")
    async def shutdown() -> Response:
        body = {"status": "shutting down" if health.draining else "serving"}
        return Response(orjson.dumps(body), 503 if health.draining else 200, media_type="application/json")

    @app.get("/metrics")
    async def expose(request: Request) -> Response:
        text, media_type = metrics.expose(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": media_type})


def create_service_app(
    health: Health, *, title: str, lifespan: Callable[[], AbstractAsyncContextManager[None]]
) -> FastAPI:
    """Return a service's internal application: ops routes, problem documents, and its `lifespan`."""
    app = FastAPI(title=title, lifespan=lambda _: lifespan(), openapi_url=None)
    add_ops_routes(app, health)
    for kind in (ServiceError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _on_error)
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        # A status of the framework's own, which no problem type describes.
        detail = str(error.detail)
        document = {
            **problem(ServiceError(detail)),
            "type": "about:blank",
            "status": error.status_code,
            "title": detail,
        }
        return Response(orjson.dumps(document), error.status_code, headers={"content-type": PROBLEM})
    if isinstance(error, ServiceError):
        answered = error
    elif isinstance(error, RequestValidationError):
        answered = InvalidInput(
            "The request does not fit its description.", errors=field_errors(error.errors())
        )
    else:
        log.error("request failed", path=request.url.path, exc_info=error)
        answered = ServiceError("The service failed; the log has the request id.")
    return Response(orjson.dumps(problem(answered)), answered.status, headers=problem_headers(answered))
