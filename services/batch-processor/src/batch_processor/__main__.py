"""Run batch-processor: `python -m batch_processor`."""

from __future__ import annotations

from chassis import lean

# structlog and httpx import these where they are installed: 4 MiB for output that no service renders. So does
# httpcore for HTTP/2, in which this process makes no requests: 1 MiB.
with lean.without("h2", "pygments", "rich"):
    from batch_processor.app import create_app
    from batch_processor.operations import InvalidOperation
    from batch_processor.settings import BatchProcessorSettings
    from chassis import asgi, logging
    from chassis.settings import load_or_exit
    from contracts.topology import BATCH_PROCESSOR


def main() -> None:
    """Serve until the process is asked to stop; exit with 1 if an operation cannot be used."""
    settings = load_or_exit(BatchProcessorSettings)
    logging.configure(service=BATCH_PROCESSOR, level=settings.log_level, style=settings.log_format)
    try:
        app = create_app(settings)
    except InvalidOperation as error:
        # The reason comes first: the trace back behind it is long.
        log = logging.get(__name__)
        log.critical("an operation cannot be used", detail=str(error), exc_info=error.__cause__)
        raise SystemExit(1) from None
    asgi.serve(
        [asgi.Listener(app.asgi, settings.host, settings.port)],
        health=app.health,
        delay_s=settings.shutdown_delay_s,
        grace_s=settings.shutdown_grace_s,
    )


if __name__ == "__main__":
    main()
