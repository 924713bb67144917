"""The routes for proxies, orchestrators and Prometheus on the ops port of a service."""

from __future__ import annotations

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chassis import exposition
from chassis.health import Health


def ops_app(health: Health) -> Starlette:
    """Return an application with the ops routes only."""
    return Starlette(routes=ops_routes(health))


def ops_routes(health: Health) -> list[Route]:
    """Return `/livez` (the process runs), `/readyz` (it can work; if not, why) and `/metrics`.

    `/readyz/shutdown` is the one check that a proxy should follow: 503 until the start has prepared the
    database, and from the moment that a stop begins. While a dependency is down no replica is ready, and a
    proxy that followed `/readyz` would refuse the requests that still work, too.
    """

    async def livez(_: Request) -> Response:
        failures = health.failures()
        body = {"status": "failed", "reasons": failures} if failures else {"status": "alive"}
        return Response(orjson.dumps(body), 503 if failures else 200, media_type="application/json")

    async def readyz(_: Request) -> Response:
        reasons = health.reasons()
        body = {"status": "not ready" if reasons else "ready", "reasons": reasons}
        return Response(orjson.dumps(body), 503 if reasons else 200, media_type="application/json")

    async def shutdown(_: Request) -> Response:
        status = "shutting down" if health.draining else "starting" if health.is_starting else "serving"
        body, code = {"status": status}, 200 if status == "serving" else 503
        return Response(orjson.dumps(body), code, media_type="application/json")

    async def expose(request: Request) -> Response:
        text, media_type = exposition.expose(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": media_type})

    found = {"/livez": livez, "/readyz": readyz, "/readyz/shutdown": shutdown, "/metrics": expose}
    return [Route(path, endpoint) for path, endpoint in found.items()]
