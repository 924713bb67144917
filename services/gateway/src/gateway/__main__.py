"""Run the gateway: `python -m gateway`."""

from __future__ import annotations

from chassis import lean

# structlog and httpx import these if they are installed: 4 MiB for output that no service produces.
with lean.without("pygments", "rich"):
    from chassis import asgi, logging
    from chassis.ops import ops_app
    from chassis.settings import load_or_exit
    from contracts.topology import GATEWAY
    from gateway.app import create_app
    from gateway.realtime.wire import WebSocketWire
    from gateway.settings import GatewaySettings


def main() -> None:
    """Serve the public listener and the ops listener until SIGTERM."""
    settings = load_or_exit(GatewaySettings)
    logging.configure(service=GATEWAY, level=settings.log_level, style=settings.log_format)
    gateway = create_app(settings)
    asgi.serve(
        [
            asgi.Listener(
                gateway.asgi,
                settings.host,
                settings.port,
                websockets=WebSocketWire,
                limits=settings.connection_limits,
                turns=gateway.turns,
            ),
            asgi.Listener(ops_app(gateway.health), settings.host, settings.ops_port),
        ],
        health=gateway.health,
        delay_s=settings.shutdown_delay_s,
        grace_s=settings.shutdown_grace_s,
    )


if __name__ == "__main__":
    main()
