"""The gateway's application: wiring only."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, cast

from quart import Quart
from quart.routing import QuartRule

from chassis.asgi import Application
from gateway.administration import pages as administration_pages
from gateway.administration import routes as administration_routes
from gateway.administration.parked_service import ParkedService
from gateway.alerts import routes as alert_routes
from gateway.alerts.service import AlertService
from gateway.aliases import routes as alias_routes
from gateway.aliases.service import AliasService
from gateway.audit import routes as audit_routes
from gateway.batches import routes as batch_routes
from gateway.bounces import routes as bounce_routes
from gateway.bounces.service import BounceService
from gateway.chat import routes as chat_routes
from gateway.chat.room_service import RoomService
from gateway.domains import routes as domain_routes
from gateway.domains.service import DomainService
from gateway.emails import routes as email_routes
from gateway.http.edge import Edge
from gateway.http.endpoints import Endpoint
from gateway.http.origins import with_cors
from gateway.http.path_numbers import PathNumber
from gateway.http.serving import EndpointConnection, Server
from gateway.identity import routes as identity_routes
from gateway.limits import routes as limit_routes
from gateway.overview import routes as overview_routes
from gateway.overview.service import OverviewService
from gateway.realtime import routes as realtime_routes
from gateway.realtime.routes import EventStreams, TokenEndpoint
from gateway.realtime.sockets import PATHS, Sockets
from gateway.reference import routes as reference_routes
from gateway.reference.service import ReferenceService
from gateway.resources import Resources
from gateway.retention import routes as retention_routes
from gateway.retention.service import RetentionService
from gateway.schedules import routes as schedule_routes
from gateway.schedules.service import ScheduleService
from gateway.settings import GatewaySettings
from gateway.stocks import routes as stock_routes
from gateway.suppressions import routes as suppression_routes
from gateway.suppressions.service import SuppressionService
from gateway.templates import routes as template_routes
from gateway.templates.service import TemplateService
from gateway.uploads import routes as upload_routes
from gateway.webhooks import routes as webhook_routes


class PathRule(QuartRule):
    """A rule that paths are compared with; nothing builds addresses by it.

    The code that would do so is half of all that the start of a gateway compiles.
    """

    def _compile_builder(self, *_: Any, **__: Any) -> Callable[..., tuple[str, str]]:
        return _build_nothing


def _build_nothing(*_: object, **__: object) -> tuple[str, str]:
    raise RuntimeError("addresses are written where they are needed, not built from routes")


class GatewayApp(Quart):
    """Quart, with the gateway's own request handling; see `gateway.http.serving`."""

    url_rule_class = PathRule
    asgi_http_class = cast(Any, EndpointConnection)
    server: Server


def create_app(settings: GatewaySettings) -> Application:
    """Return the wired application; its lifespan opens and closes the resources."""
    return wired(settings, Resources(settings))


def wired(settings: GatewaySettings, resources: Resources) -> Application:
    """Return the application over these resources."""
    sockets = Sockets(
        realtime=resources.realtime,
        connections=resources.connections,
        limit=resources.connection_limit,
        slow_clients=resources.slow_clients,
        origins=settings.origins,
    )
    # Inside the edge, so that a preflight request also has ids and is counted.
    asgi = Edge(
        with_cors(cast(Any, create_quart(settings, resources)), settings.origins),
        body_limit=settings.body_limit_bytes,
        sockets=with_cors(cast(Any, sockets), settings.origins),
        socket_paths=PATHS,
    )
    return Application(asgi, resources.runtime.health, resources.loop_turns)


def create_quart(settings: GatewaySettings, resources: Resources) -> GatewayApp:
    """Return the application with all its routes; nothing is opened before its lifespan begins."""
    app = GatewayApp("gateway", static_folder=None)
    app.url_map.merge_slashes = False
    app.url_map.converters["int"] = PathNumber
    app.server = Server(
        resources.keyring.authenticate,
        resources.once,
        charge=resources.limits.charge,
        routes=app.url_map.bind("gateway"),
        timeout_s=settings.request_timeout_s,
        upload_limit=settings.upload_limit_bytes,
        authenticate_stream=resources.tokens.authenticate_stream,
        renew=resources.keyring.require,
        shared=resources.shared_bytes,
        turns=resources.loop_turns,
    )
    app.server.register(app, endpoints(resources))
    # It describes the problems of all registered endpoints, including its own.
    reference = ReferenceService(app.server.endpoints)
    app.server.register(app, reference_routes.endpoints(reference))
    resources.operations.offer(app.server.endpoints)

    @app.while_serving
    async def lifespan() -> AsyncGenerator[None, None]:
        async with resources.open():
            yield

    return app


def endpoints(resources: Resources) -> Iterator[Endpoint]:
    """Yield the declared endpoints of all features: a new feature is one line here.

    What only its routes use is created with it; `Resources` has what runs, and what several features share.
    """
    yield from stock_routes.endpoints(resources.stocks)
    yield from alert_routes.endpoints(AlertService(resources.rpc, resources.webhooks, resources.audit))
    yield from email_routes.endpoints(resources.emails, resources.email_bulk)
    yield from template_routes.endpoints(TemplateService(resources.rpc, resources.audit))
    yield from upload_routes.endpoints(resources.uploads)
    yield from domain_routes.endpoints(DomainService(resources.rpc, resources.senders, resources.audit))
    yield from suppression_routes.endpoints(SuppressionService(resources.rpc, resources.audit))
    yield from retention_routes.endpoints(RetentionService(resources.rpc, resources.users, resources.audit))
    yield from bounce_routes.endpoints(BounceService(resources.rpc))
    yield from batch_routes.endpoints(resources.batches)
    yield from schedule_routes.endpoints(ScheduleService(resources.rpc, resources.catalogue, resources.audit))
    yield from chat_routes.endpoints(RoomService(resources.runtime.postgres, resources.chat, resources.audit))
    yield from webhook_routes.endpoints(resources.webhooks, resources.webhook_deliveries)
    streams = EventStreams(resources.channels, resources.connections, resources.connection_limit)
    yield from realtime_routes.endpoints(streams, TokenEndpoint(resources.tokens))
    yield from identity_routes.endpoints(resources.users, resources.keys, resources.logins)
    yield from limit_routes.endpoints(resources.limits)
    yield from audit_routes.endpoints(resources.audit)
    yield from overview_routes.endpoints(
        OverviewService(resources.stocks, resources.email_listing, resources.rpc)
    )
    yield from administration_routes.endpoints(
        ParkedService(resources.runtime.parked, resources.rpc, resources.audit),
        resources.status,
        resources.pauses,
        resources.runtime.health,
    )
    yield from administration_pages.endpoints()
    yield from alias_routes.endpoints(AliasService(resources.emails, resources.batches), resources.stocks)
