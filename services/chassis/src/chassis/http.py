"""The FastAPI side that services share: the ops routes, and errors answered as problem documents."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from chassis import logging, ops
from chassis.errors import InvalidInput, ServiceError
from chassis.health import Health
from chassis.problems import PROBLEM, field_errors, problem, problem_headers

log = logging.get(__name__)


def create_service_app(
    health: Health, *, title: str, lifespan: Callable[[], AbstractAsyncContextManager[None]]
) -> FastAPI:
    """Return a service's internal application: ops routes, problem documents, and its `lifespan`."""
    routes = list[BaseRoute](ops.ops_routes(health))
    app = FastAPI(title=title, lifespan=lambda _: lifespan(), openapi_url=None, routes=routes)
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
            "The request does not match its schema; see errors.", errors=field_errors(error.errors())
        )
    else:
        log.error("request failed", path=request.url.path, exc_info=error)
        answered = ServiceError("The service failed; the log has the request id.")
    return Response(orjson.dumps(problem(answered)), answered.status, headers=problem_headers(answered))
