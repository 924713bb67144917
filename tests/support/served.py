"""Declared endpoints, served in the test by the gateway's own edge, without servers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx

from chassis.errors import Unauthenticated
from chassis.loop_turns import LoopTurns
from contracts.scopes import Scope
from gateway.app import GatewayApp
from gateway.http.calls import Call
from gateway.http.edge import Application, Edge
from gateway.http.endpoints import Endpoint
from gateway.http.principal import Principal
from gateway.http.rates import Charge, charge_nothing
from gateway.http.replies import HttpReply
from gateway.http.serving import Authenticate, Effect, Once, Server

MEMBER = Principal(7, "Ann", "member", "k", frozenset({Scope.QUOTES_READ}))


async def authenticate(text: str | None, _: str | None) -> Principal:
    """Know one key, `good`."""
    if text != "good":
        raise Unauthenticated("Send your key.", headers={"www-authenticate": "Bearer"})
    return MEMBER


async def without_database(_: Call, __: Endpoint, effect: Effect) -> HttpReply:
    """Run an effect outside of any transaction."""
    return await effect()


@asynccontextmanager
async def serving(
    endpoints: Iterable[Endpoint],
    *,
    body_limit: int = 200,
    timeout_s: float = 5,
    identify: Authenticate = authenticate,
    once: Once = without_database,
    charge: Charge = charge_nothing,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve `endpoints` to a client that has a key."""
    app = application(endpoints, timeout_s=timeout_s, identify=identify, once=once, charge=charge)
    edge = Edge(cast(Application, app), body_limit=body_limit, clock=clock)
    transport = httpx.ASGITransport(cast(Any, edge))
    headers = {"authorization": "Bearer good"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
        yield client


def application(
    endpoints: Iterable[Endpoint],
    *,
    timeout_s: float = 5,
    identify: Authenticate = authenticate,
    once: Once = without_database,
    charge: Charge = charge_nothing,
    turns: LoopTurns | None = None,
) -> GatewayApp:
    """Return an application that serves `endpoints`."""
    app = GatewayApp("test", static_folder=None)
    app.server = Server(
        identify,
        once,
        charge=charge,
        routes=app.url_map.bind("gateway"),
        timeout_s=timeout_s,
        upload_limit=1000,
        turns=turns,
    )
    app.server.register(app, endpoints)
    return app
