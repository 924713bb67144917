"""A line of the log is one JSON object with the ids of the work at hand, and without secrets."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging as stdlib
import sys
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import structlog

from chassis import logging, tracing
from support.clocks import Clock

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class LogStream(io.StringIO):
    @property
    def last(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self.getvalue().splitlines()[-1])
        return found


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogStream]:
    root = stdlib.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = LogStream()
    before = structlog.get_config()
    monkeypatch.setattr(sys, "stderr", stream)
    logging.configure(service="gateway", level="DEBUG", style="json")
    # What another test has logged with is kept by its loggers, and is none of ours.
    structlog.configure(cache_logger_on_first_use=False)
    yield stream
    structlog.configure(**before)
    logging.Verbosity.is_debug, logging.Verbosity.brief_lines = False, None
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_carries_the_ids_of_the_work_at_hand_and_only_then(lines: LogStream) -> None:
    log = logging.get("test")
    with tracing.during(TRACEPARENT, "my-request"), logging.about(message_id="m1"):
        log.info("inside")
    inside = lines.last
    assert (inside["trace_id"], inside["request_id"]) == (TRACEPARENT.split("-")[1], "my-request")
    assert (inside["message_id"], inside["service"], inside["level"]) == ("m1", "gateway", "info")
    log.info("outside")
    assert not {"trace_id", "request_id", "message_id"} & lines.last.keys()


def test_a_brief_line_is_the_line_that_a_logger_writes(lines: LogStream) -> None:
    values: dict[str, str | float] = {"method": "POST", "status": 202, "elapsed_s": 0.01}
    with tracing.during() as trace:
        assert logging.write_brief("request", module="a.b", trace=trace, **values)
        brief = lines.last
        logging.get("a.b").info("request", **values)
    usual = lines.last
    assert brief.pop("timestamp")[:14] == usual.pop("timestamp")[:14]
    assert list(brief.items()) == list(usual.items())


def test_a_line_with_an_id_that_somebody_has_chosen_is_left_to_a_logger_which_redacts_it(
    lines: LogStream,
) -> None:
    with tracing.during(None, "tw_live_0123456789abcdef_secret") as trace:
        assert not logging.write_brief("request", module="a.b", trace=trace, status=202)
    assert lines.getvalue() == ""


@pytest.mark.parametrize(("level", "style"), [("WARNING", "json"), ("INFO", "pretty")])
def test_no_brief_line_is_written_where_a_logger_would_write_another_one_or_none(
    lines: LogStream, level: str, style: logging.Style
) -> None:
    logging.configure(service="gateway", level=level, style=style)
    with tracing.during() as trace:
        assert not logging.write_brief("request", module="a.b", trace=trace, status=202)
    assert lines.getvalue() == ""


def test_lines_of_libraries_carry_the_ids_too(lines: LogStream) -> None:
    with tracing.during(TRACEPARENT), logging.about(message_id="m1"):
        stdlib.getLogger("a.library").warning("odd: %s", "amqp://a:hunter2@b")
    assert lines.last["message_id"] == "m1"
    assert lines.last["event"] == "odd: amqp://a:[redacted]@b"
    assert lines.last["logger"] == "a.library"


def test_secrets_are_taken_out_wherever_they_are_in_a_line(lines: LogStream) -> None:
    nested = {"relay": {"password": "hunter2"}, "said": [b"token=hunter2"]}
    logging.get("test").info("a password=hunter2", token="hunter2", nested=nested)
    assert "hunter2" not in lines.getvalue()
    assert lines.last["nested"] == {"relay": {"password": "[redacted]"}, "said": ["token=[redacted]"]}


def test_an_exception_is_logged_with_its_frames_and_without_secrets(lines: LogStream) -> None:
    try:
        raise ValueError("cannot parse postgresql://gateway:hunter2@db/gateway")
    except ValueError:
        logging.get("test").exception("failed")
    assert "hunter2" not in lines.getvalue()
    assert "ValueError: cannot parse" in lines.last["exception"]
    assert "test_logging.py" in lines.last["exception"]


def test_an_exception_of_a_library_is_logged_without_secrets(lines: LogStream) -> None:
    try:
        raise ValueError("password=hunter2")
    except ValueError:
        stdlib.getLogger("a.library").exception("failed")
    assert "hunter2" not in lines.getvalue()
    assert "ValueError: password=[redacted]" in lines.getvalue()


def test_libraries_do_not_log_the_bytes_that_they_send_and_receive(lines: LogStream) -> None:
    stdlib.getLogger("websockets.server").debug("< TEXT 'dear diary'")
    assert "diary" not in lines.getvalue()


def test_of_very_many_warnings_of_an_event_some_are_logged_and_the_others_counted() -> None:
    clock = Clock()
    limit = logging.LineLimit(clock=clock)

    def logged(method: str, event: str) -> dict[str, Any] | None:
        try:
            return dict(limit(None, method, {"module": "test", "event": event}))
        except structlog.DropEvent:
            return None

    lines = [logged("warning", "relay passed over") for _ in range(10 * logging.MOST_LINES)]
    assert [line is not None for line in lines].index(False) == logging.MOST_LINES
    assert not any(lines[logging.MOST_LINES :])
    # Another event, and what is no warning, has all of its lines.
    assert logged("error", "mail cannot be built") is not None
    assert all(logged("info", "request") for _ in range(10 * logging.MOST_LINES))
    clock.now += logging.LINES_PERIOD_S
    assert logged("warning", "relay passed over") == {
        "module": "test",
        "event": "relay passed over",
        "left_out": 9 * logging.MOST_LINES,
    }
    assert logged("warning", "relay passed over") == {"module": "test", "event": "relay passed over"}


def test_a_flood_of_warnings_does_not_fill_the_log(lines: LogStream) -> None:
    for number in range(2 * logging.MOST_LINES):
        logging.get("test").warning("an answer was cut", number=number)
    assert len(lines.getvalue().splitlines()) == logging.MOST_LINES


def test_what_a_flood_has_left_out_is_told_though_no_line_of_it_follows(lines: LogStream) -> None:
    clock = Clock()
    limit = logging.LineLimit(clock=clock)
    for number in range(2 * logging.MOST_LINES):
        with contextlib.suppress(structlog.DropEvent):
            limit(None, "warning", {"module": "test", "event": "an answer was cut", "number": number})
    limit.report()
    assert lines.getvalue() == ""
    clock.now += logging.LINES_PERIOD_S
    limit.report()
    limit.report()
    [told] = map(orjson.loads, lines.getvalue().splitlines())
    assert (told["module"], told["of"], told["left_out"]) == ("test", "an answer was cut", 100)


def test_a_library_that_warns_without_end_does_not_fill_the_log(lines: LogStream) -> None:
    for number in range(2 * logging.MOST_LINES):
        stdlib.getLogger("a.library").warning("socket.send() raised exception %d", number)
        stdlib.getLogger("a.library").info("connected")
    logging.Verbosity.limit.report(at_end=True)
    levels = [orjson.loads(line)["level"] for line in lines.getvalue().splitlines()]
    assert (levels.count("info"), levels.count("warning")) == (2 * logging.MOST_LINES, logging.MOST_LINES + 1)
    assert (lines.last["module"], lines.last["left_out"]) == ("a.library", logging.MOST_LINES)


async def test_what_was_left_out_is_told_at_the_latest_when_the_process_ends(lines: LogStream) -> None:
    telling = asyncio.create_task(logging.report_left_out())
    await asyncio.sleep(0)
    for _ in range(logging.MOST_LINES + 1):
        logging.get("test").warning("an answer was cut")
    telling.cancel()
    await asyncio.wait([telling])
    assert lines.last["left_out"] == 1
