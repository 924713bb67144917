"""Logs: one JSON object a line, or pretty lines on a terminal, with the ids of the work at hand."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import orjson
import structlog

from chassis import tracing

_SECRET_KEY = re.compile(r"(password|secret|token|authorization|pepper|api_?key|dsn|cookie)", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"(tw_live_[0-9a-f]+_)[A-Za-z0-9_-]+|(://[^:/@\s]+:)[^@\s]+(?=@)")


def get(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for a module; `name` is its dotted name."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(module=name)
    return logger


def configure(*, service: str, level: str, style: Literal["auto", "json", "pretty"]) -> None:
    """Send the logs of this process, libraries included, to standard error."""
    pretty = style == "pretty" or (style == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_service(service),
        _add_trace,
        structlog.processors.format_exc_info,
        _redact,
    ]
    renderer: Any = structlog.dev.ConsoleRenderer() if pretty else _render_json
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # These report each lost connection of their own; the broker's link already says it once.
    for noisy in ("aio_pika", "aiormq", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def _add_service(service: str) -> structlog.types.Processor:
    def add(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    return add


def _add_trace(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    trace = tracing.current()
    if trace is not None:
        event.setdefault("trace_id", trace.trace_id)
        event.setdefault("request_id", trace.request_id)
    return event


def _redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if _SECRET_KEY.search(key):
            event[key] = "[redacted]"
        elif isinstance(value, str):
            event[key] = _SECRET_VALUE.sub(lambda m: f"{m[1] or m[2]}[redacted]", value)
    return event


def _render_json(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    return orjson.dumps(event, default=str).decode()
