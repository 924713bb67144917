"""The operations of the HTTP API that a socket may call: read-only ones with JSON answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
from pydantic import ValidationError

from chassis.deadlines import Deadline
from gateway.http import reading, replies
from gateway.http.calls import Call
from gateway.http.endpoints import Endpoint
from gateway.http.principal import Principal
from gateway.http.problems import misfit
from gateway.http.rates import Charge, charge_nothing
from gateway.http.replies import JSON
from gateway.realtime.codes import CommandError, ErrorCode


class ReadingOperations:
    """Calls the handlers of declared endpoints by name, with the rights and the limits that they declare."""

    def __init__(self, *, timeout_s: float, charge: Charge = charge_nothing) -> None:
        self._timeout_s = timeout_s
        self._charge = charge
        self.offered: dict[str, Endpoint] = {}

    def offer(self, endpoints: Iterable[Endpoint]) -> None:
        """Offer those of `endpoints` that are read-only and need a caller."""
        for endpoint in endpoints:
            is_reading = endpoint.method == "GET" and JSON in endpoint.media_types
            if is_reading and not endpoint.is_public and not endpoint.is_alias:
                self.offered[endpoint.name] = endpoint

    async def call(self, principal: Principal, name: str, params: Any) -> orjson.Fragment:
        """Return the answer of the operation. Raise `CommandError` or `ServiceError`."""
        endpoint = self.offered.get(name)
        if endpoint is None:
            raise CommandError(ErrorCode.METHOD_NOT_FOUND, f"There is no read-only operation {name!r}.")
        if endpoint.scope is not None:
            principal.require(endpoint.scope)
        await self._charge(principal, endpoint.rate, 1)
        call = Call(principal, Deadline.after(self._timeout_s), JSON)
        reply = replies.of(await endpoint.handler(call, **_arguments(endpoint, params)))
        if not isinstance(reply.body, bytes):
            raise CommandError(ErrorCode.NOT_AVAILABLE, f"{name} does not answer with a single document.")
        # JSON already, which is not parsed again for its place in a reply. Clients split frames at line ends,
        # which in JSON stand between values only.
        return orjson.Fragment(reply.body.replace(b"\n", b" "))


def _arguments(endpoint: Endpoint, params: Any) -> dict[str, Any]:
    """Split an object of parameters into parts of the path and the query; return both."""
    if params is not None and not isinstance(params, dict):
        raise CommandError(ErrorCode.BAD_REQUEST, "data must be an object with the parameters.")
    # Written as in a query string, so that validation and errors are the same.
    given = {name: _as_parameter(value) for name, value in (params or {}).items()}
    arguments: dict[str, Any] = {}
    for name, (converter, adapter) in endpoint.path_parameters.items():
        part = given.pop(name, None)
        if converter == "int" and part is not None:
            reading.require_whole(name, part)
        try:
            arguments[name] = adapter.validate_python(part)
        except ValidationError as error:
            detail = "The parameters are not valid for the operation; see errors."
            raise misfit(detail, error, at=f"/{name}") from None
    if endpoint.query is not None:
        return {**arguments, "query": reading.query_of(endpoint.query, given)}
    if given:
        raise CommandError(ErrorCode.BAD_REQUEST, f"{endpoint.name} has no parameter {next(iter(given))!r}.")
    return arguments


def _as_parameter(value: Any) -> str:
    """Return `value` as in a query string, with lists separated by commas."""
    if isinstance(value, list):
        return ",".join(map(_as_parameter, value))
    return value if isinstance(value, str) else orjson.dumps(value).decode()
