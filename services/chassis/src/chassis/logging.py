"""Logs: one JSON object a line, or pretty lines on a terminal, with the ids of the request or message."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO, TypeAlias

import orjson
import structlog

from chassis import beats, plain, redaction, tracing

# `auto` is `pretty` on a terminal, and otherwise `json`.
Style: TypeAlias = Literal["auto", "json", "pretty"]

# These log every lost connection; the broker's link already logs each once.
_NOISY = ("aio_pika", "aiormq", "httpx", "httpcore")
# At DEBUG these log all that goes over the wire.
_TALKATIVE = ("uvicorn", "websockets", "urllib3", "asyncpg", "hpack")
# Enough for a traceback with several causes; more would add nothing.
_LONGEST_TEXT = 100_000
# Warnings and errors of one event in ten seconds: callers, and servers outside, may cause any number.
MOST_LINES = 100
LINES_PERIOD_S = 10.0
_BELOW_WARNING = ("debug", "info")
_OF_LIBRARY = "any of the library"


class Lines(structlog.WriteLogger):
    """Writes lines, and ignores that nothing reads the stream any more."""

    def msg(self, message: str) -> None:
        """Write a line."""
        with contextlib.suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


class _Handler(logging.StreamHandler[TextIO]):
    """Writes what libraries log; a record that cannot be formatted is replaced by its place in the code."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        error = sys.exception()
        failure = type(error).__name__ if error else "unknown"
        get(record.name).error("log record cannot be written", line=record.lineno, failure=failure)


class LineLimit:
    """Leaves out warnings and errors beyond `MOST_LINES` of an event in ten seconds (a processor).

    The first line of the event after them says in `left_out` how many there were, or `report` does.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # The end of the period and the lines in it, by module and event, which are constants of the code.
        self._periods: dict[tuple[str, str], tuple[float, int]] = {}

    def __call__(self, _: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Return the event, or raise `DropEvent`."""
        if method in _BELOW_WARNING:
            return event
        left_out = self._count(str(event.get("module")), str(event["event"]))
        if left_out is None:
            raise structlog.DropEvent
        if left_out:
            event["left_out"] = left_out
        return event

    def has_room(self, record: logging.LogRecord) -> bool:
        """Return whether a line of a library is written; all warnings of one of its loggers are one event."""
        if record.levelno < logging.WARNING:
            return True
        left_out = self._count(record.name, _OF_LIBRARY)
        if left_out:
            self._tell(record.name, _OF_LIBRARY, left_out)
        return left_out is not None

    def report(self, *, at_end: bool = False) -> None:
        """Log how many lines of each event were left out in periods that have ended; `at_end`, in all."""
        now = self._clock()
        # Of a copy, and as it is by then, because threads log, too.
        for name, (ends_at, _) in self._periods.copy().items():
            if ends_at > now and not at_end:
                continue
            _, lines = self._periods.pop(name, (0.0, 0))
            if lines > MOST_LINES:
                self._tell(*name, lines - MOST_LINES)

    def _count(self, module: str, event: str) -> int | None:
        """Return None for a line too many; otherwise how many were left out that nothing has told yet."""
        name, now = (module, event), self._clock()
        ends_at, lines = self._periods.get(name, (0.0, 0))
        if now < ends_at:
            self._periods[name] = ends_at, lines + 1
            return None if lines >= MOST_LINES else 0
        self._periods[name] = now + LINES_PERIOD_S, 1
        return max(0, lines - MOST_LINES)

    @staticmethod
    def _tell(module: str, event: str, left_out: int) -> None:
        get(module).warning("lines of an event were left out", of=event, left_out=left_out)


class Verbosity:
    """Whether lines for single messages are logged: checking this is cheaper than a suppressed line.

    `brief_lines` is where `write_brief` writes, None where no line is written in this way. `limit` counts the
    warnings and errors.
    """

    is_debug: bool = False
    brief_lines: Lines | None = None
    service: str = ""
    limit = LineLimit()


def get(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger for a module; `name` is its dotted name."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(module=name)
    return logger


def write_brief(event: str, *, module: str, trace: tracing.Trace, **values: str | float) -> bool:
    """Write the line that `get(module).info(event, **values)` writes in `trace`, in a fraction of the time.

    The values are this service's own, which hold no secret. Return False, without a line, where a logger has
    to write it: in another form, or with an id that the caller has chosen.
    """
    lines = Verbosity.brief_lines
    if lines is None or trace.request_id != trace.trace_id:
        return False
    line = {
        "module": module,
        **values,
        "event": event,
        "service": Verbosity.service,
        "trace_id": trace.trace_id,
        "request_id": trace.request_id,
        "level": "info",
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    }
    lines.msg(orjson.dumps(line).decode())
    return True


def about(**ids: object) -> AbstractContextManager[None]:
    """Add `ids` to every line that is logged in the block."""
    return structlog.contextvars.bound_contextvars(**ids)


def configure(*, service: str, level: str, style: Style) -> None:
    """Send the logs of this process, libraries included, to standard error."""
    output = sys.stderr
    Verbosity.is_debug = level == "DEBUG"
    Verbosity.service = service
    pretty = style == "pretty" or (style == "auto" and output.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        add_context(service),
        structlog.processors.ExceptionRenderer(
            lambda raised: "" if raised[1] is None else redaction.trace_back(raised[1])
        ),
        redact,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = structlog.dev.ConsoleRenderer() if pretty else render_json
    has_info = logging.getLevelNamesMapping()[level] <= logging.INFO
    Verbosity.brief_lines = Lines(output) if has_info and not pretty else None
    Verbosity.limit = LineLimit()
    structlog.configure(
        processors=[Verbosity.limit, *shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=lambda *_: Lines(output),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(output)
    handler.addFilter(Verbosity.limit.has_room)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    sys.excepthook = _log_end
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    for talkative in _TALKATIVE:
        logging.getLogger(talkative).setLevel(max(logging.INFO, logging.getLevelName(level)))


def _log_end(kind: type[BaseException], error: BaseException, trace_back: TracebackType | None) -> None:
    # Python's own report of a fatal error would show everything that the error quotes.
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace_back)
        return
    get(__name__).critical("the process failed", exc_info=error)


async def report_left_out() -> None:
    """Log once in ten seconds how many lines were left out, until cancelled; then those that are left."""
    try:
        while True:
            await beats.following(LINES_PERIOD_S)
            Verbosity.limit.report()
    finally:
        Verbosity.limit.report(at_end=True)


def add_context(service: str) -> structlog.types.Processor:
    """Return a processor that adds the service, and the ids of the current trace."""

    def add(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        trace = tracing.current()
        if trace is not None:
            event.setdefault("trace_id", trace.trace_id)
            event.setdefault("request_id", trace.request_id)
        return event

    return add


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return the event without secrets, every value plain and bounded (a processor)."""
    if redaction.is_harmless(event):
        return event
    # Names that begin with an underscore belong to the logging library.
    return {
        name if name.isidentifier() else plain.text(name): (
            found if name.startswith("_") else redaction.named(name, found)
        )
        for name, found in event.items()
    }


def render_json(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    """Return the event as a line of JSON (a processor)."""
    try:
        # The values from `redact` are already plain and bounded.
        return orjson.dumps(event).decode()
    except TypeError:
        return plain.json(event, most_characters=_LONGEST_TEXT)
