"""The gateway's application: wiring only."""

from __future__ import annotations

from typing import cast

from quart import Quart, Response, request
from quart.routing import QuartMap
from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.routing import MapAdapter

from gateway.administration import console, parked, status
from gateway.aliases import routes as alias_routes
from gateway.batches import routes as batch_routes
from gateway.chat import routes as chat_routes
from gateway.emails import routes as email_routes
from gateway.http.edge import ROUTE, Application, Edge
from gateway.http.endpoint import Api, answer, scope_of
from gateway.identity import routes as identity_routes
from gateway.overview import routes as overview_routes
from gateway.realtime import routes as realtime_routes
from gateway.realtime.sockets import Sockets
from gateway.resources import Resources
from gateway.settings import GatewaySettings
from gateway.stocks import routes as stock_routes


class _Map(QuartMap):
    """Routes by path alone: nothing depends on a Host header, which anybody can write."""

    def bind_to_request(
        self,
        request: BaseRequestWebsocket,
        subdomain: str | None,  # noqa: ARG002 - Quart's signature
        server_name: str | None,  # noqa: ARG002
    ) -> MapAdapter:
        return super().bind(
            "gateway",
            request.root_path,
            None,
            request.scheme,
            request.method,
            request.path,
            request.query_string.decode("ascii", "replace"),
        )


class _Quart(Quart):
    url_map_class = _Map


class Gateway:
    """The public application (`asgi`) and the parts behind it."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.resources = Resources(settings)
        self.quart = _create_quart(self.resources)
        sockets = Sockets(
            cast(Application, self.quart),
            realtime=self.resources.realtime,
            connections=self.resources.connections,
            limit=self.resources.connection_limit,
        )
        self.asgi = Edge(sockets, body_limit=settings.body_limit_bytes)


def create_app(settings: GatewaySettings) -> Gateway:
    """Build the gateway; nothing is opened before its lifespan begins."""
    return Gateway(settings)


def _create_quart(resources: Resources) -> Quart:
    app = _Quart("gateway", static_folder=None)
    # The edge limits bodies, and answers for how long it takes: Quart's own limits stay out of the way.
    app.config.update(MAX_CONTENT_LENGTH=None, BODY_TIMEOUT=60, RESPONSE_TIMEOUT=None)
    app.url_map.strict_slashes = app.url_map.merge_slashes = False
    app.before_serving(resources.open)
    app.after_serving(resources.close)
    settings = resources.settings
    api = Api(app, resources.keyring, timeout_s=settings.request_timeout_s)
    identity_routes.register(api, resources.users, resources.identity, resources.pepper)
    stock_routes.register(api, resources.stocks, resources.rpc)
    email_routes.register(api, resources.emails)
    batch_routes.register(api, resources.batches, upload_limit=settings.upload_limit_bytes)
    overview_routes.register(api, resources.stocks, resources.rpc)
    chat_routes.register(api, resources.chat)
    realtime_routes.register(api, resources.hub, resources.batches, limit=resources.connection_limit)
    alias_routes.register(
        api,
        stocks=resources.stocks,
        emails=resources.emails,
        batches=resources.batches,
        users=resources.users,
    )
    parked.register(api, resources.parked)
    status.register(api, resources.status)
    console.register(app)
    _register_healthz(app, resources)
    return app


def _register_healthz(app: Quart, resources: Resources) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        """Whether the gateway can work; the reasons are on the ops port, for nobody outside."""
        scope_of(request)[ROUTE] = "/healthz"
        is_ready = not resources.runtime.health.reasons()
        return answer({"status": "ok" if is_ready else "unavailable"}, 200 if is_ready else 503)
