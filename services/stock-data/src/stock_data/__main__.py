"""Run stock-data: `python -m stock_data`."""

from __future__ import annotations

from chassis import lean

# structlog and httpx import these where they are installed: 4 MiB for output that no service renders.
with lean.without("pygments", "rich"):
    from chassis import asgi, logging
    from chassis.settings import load_or_exit
    from contracts.topology import STOCK_DATA
    from stock_data.app import create_app
    from stock_data.settings import StockDataSettings


def main() -> None:
    """Serve until the process is asked to stop."""
    settings = load_or_exit(StockDataSettings)
    logging.configure(service=STOCK_DATA, level=settings.log_level, style=settings.log_format)
    app = create_app(settings)
    asgi.serve(
        [asgi.Listener(app.asgi, settings.host, settings.port)],
        health=app.health,
        delay_s=settings.shutdown_delay_s,
        grace_s=settings.shutdown_grace_s,
    )


if __name__ == "__main__":
    main()
