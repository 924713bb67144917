"""The HTTP edge that all services share: problem documents and the ops routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from chassis import logging, metrics, tracing
from chassis.errors import InvalidInput, ServiceError
from chassis.health import Health
from chassis.runtime import ServiceRuntime
from contracts.message import FieldError

log = logging.get(__name__)

PROBLEM = "application/problem+json"


def problem(error: ServiceError) -> dict[str, Any]:
    """`error` as a problem document (RFC 9457); `instance` is the request's id."""
    trace = tracing.current()
    document: dict[str, Any] = {
        "type": f"/problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
    }
    if trace is not None:
        document["instance"] = trace.request_id
    if error.errors:
        document["errors"] = [{"pointer": e.pointer, "detail": e.detail} for e in error.errors]
    return document


def problem_headers(error: ServiceError) -> dict[str, str]:
    """The headers that go with a problem."""
    headers = {"content-type": PROBLEM, **error.headers}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    return headers


def pointer(location: tuple[int | str, ...]) -> str:
    """A JSON pointer (RFC 6901) to where pydantic found a problem."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def field_errors(problems: list[Any]) -> list[FieldError]:
    """pydantic's errors as pointers and sentences; values are left out, they may be secret or huge."""
    return [
        FieldError(pointer=pointer(p["loc"]), detail=p["msg"].removeprefix("Value error, "))
        for p in problems[:20]
    ]


def ops_routes(health: Health) -> FastAPI:
    """An application with `/livez`, `/readyz` and `/metrics` only."""
    app = FastAPI(title="ops", openapi_url=None)
    add_ops_routes(app, health)
    return app


def add_ops_routes(app: FastAPI, health: Health) -> None:
    """Add `/livez` (the process runs), `/readyz` (it can work; if not, why) and `/metrics` to `app`."""

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

    @app.get("/metrics")
    async def expose(request: Request) -> Response:
        text, media_type = metrics.expose(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": media_type})


def create_service_app(
    runtime: ServiceRuntime, *, title: str, on_open: Callable[[], Any], on_close: Callable[[], Any]
) -> FastAPI:
    """A service's internal application: ops routes, problems, a lifespan that opens and closes it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await on_open()
        try:
            yield
        finally:
            await on_close()

    app = FastAPI(title=title, lifespan=lifespan, openapi_url=None)
    add_ops_routes(app, runtime.health)
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected)
    return app


def _answer(error: ServiceError) -> Response:
    return Response(orjson.dumps(problem(error)), error.status, headers=problem_headers(error))


async def _on_service_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return _answer(error)


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _answer(
        InvalidInput("The request does not fit its description.", errors=field_errors(list(error.errors())))
    )


async def _on_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    found = ServiceError(str(error.detail))
    document = {
        **problem(found),
        "type": "about:blank",
        "status": error.status_code,
        "title": str(error.detail),
    }
    return Response(orjson.dumps(document), error.status_code, headers={"content-type": PROBLEM})


async def _on_unexpected(request: Request, error: Exception) -> Response:
    log.error("request failed", path=request.url.path, exc_info=error)
    return _answer(ServiceError("The service failed; the log has the request id."))
