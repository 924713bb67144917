"""Run the email service: `python -m emailer`."""

from __future__ import annotations

from chassis import lean

# structlog and httpx load these two if they are installed: 4 MiB for terminal output that no service uses.
with lean.without("pygments", "rich"):
    from chassis import asgi, logging
    from chassis.settings import load_or_exit
    from contracts.topology import EMAIL
    from emailer.app import create_app
    from emailer.settings import EmailSettings


def main() -> None:
    """Serve until the process is asked to stop."""
    settings = load_or_exit(EmailSettings)
    logging.configure(service=EMAIL, level=settings.log_level, style=settings.log_format)
    app = create_app(settings)
    asgi.serve(
        [asgi.Listener(app.asgi, settings.host, settings.port)],
        health=app.health,
        delay_s=settings.shutdown_delay_s,
        grace_s=settings.shutdown_grace_s,
    )


if __name__ == "__main__":
    main()
