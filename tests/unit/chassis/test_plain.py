"""Any content of a log line, an error or a header becomes text and JSON that every store takes."""

from __future__ import annotations

import asyncio
import logging as stdlib
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis import logging, plain, redaction
from chassis.errors import ServiceError
from chassis.problems import problem
from support.mute_error import MuteError


class Endless(Mapping[Any, Any]):
    """Has names without an end and no values."""

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield self

    def __getitem__(self, name: Any) -> Any:
        raise KeyError(name)

    def __len__(self) -> int:
        return 2**60


class Closed(ExceptionGroup[Exception]):
    """None of its attributes can be read."""

    def __getattribute__(self, name: str) -> Any:
        raise KeyError(name)


def groups(*, deep: int, wide: int) -> Exception:
    """Return a group of `wide` groups, and so on, `deep` levels deep."""
    found: Exception = ValueError("leaf")
    for _ in range(deep):
        found = ExceptionGroup("several", [found] * wide)
    return found


def itself() -> list[Any]:
    found: list[Any] = ["begin"]
    found.append({"again": found})
    return found


FAILURES = [ValueError("\ud800"), RecursionError(), asyncio.CancelledError(), SystemExit(3), MemoryError()]
mute = st.sampled_from(FAILURES).map(MuteError)
texts = st.text(st.characters(codec=None, exclude_categories=())) | st.sampled_from(["\ud800", "a\0b"])
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**5000, max_value=10**5001),
    st.floats(),
    texts,
    st.binary(),
    mute,
    st.builds(object),
    st.builds(Endless),
    st.builds(itself),
)
nested = st.recursive(
    odd, lambda part: st.lists(part) | st.dictionaries(texts, part) | st.tuples(part, part), max_leaves=20
)
errors = st.one_of(
    mute,
    st.builds(ValueError, nested),
    st.builds(KeyError, texts),
    st.builds(OSError, st.integers(), texts),
    st.builds(ServiceError, texts),
    st.builds(lambda text, error: ExceptionGroup("several", [ValueError(text), error]), texts, mute),
)


@given(nested)
def test_any_value_becomes_text_that_a_database_takes(found: object) -> None:
    reported = plain.text(found)
    assert "\0" not in reported.encode().decode()
    assert len(reported) <= 10_000 * len("\\U0010ffff")


@given(nested)
def test_any_value_becomes_json_that_a_database_takes(found: object) -> None:
    reported = plain.json({"found": found})
    # A backslash that the text had itself begins no escape.
    assert "\\u0000" not in reported.replace("\\\\", "")
    assert list(orjson.loads(reported)) == ["found"]


@given(errors)
def test_any_error_has_a_message_and_a_traceback(error: BaseException) -> None:
    error.__cause__ = MuteError(error)
    for reported in (redaction.safe_message(error), redaction.trace_back(error)):
        assert type(error).__name__ in reported
        assert "\0" not in reported.encode().decode()


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(groups(deep=3000, wide=1), id="deep"),
        pytest.param(groups(deep=12, wide=9), id="wide"),
        pytest.param(Closed("closed", [ValueError("leaf")]), id="closed"),
    ],
)
def test_the_traceback_of_a_group_of_any_shape_is_short(error: Exception) -> None:
    reported = redaction.trace_back(error)
    assert type(error).__name__ in reported
    assert reported.count("Traceback") < 10


@given(errors, nested, texts)
def test_any_error_and_value_can_be_logged(error: BaseException, found: object, name: str) -> None:
    event = {"event": "failed", "found": found, name: found, "error": error, "reason": str}
    line = logging.render_json(None, "", logging.redact(None, "", event))
    assert {"event", "found", "error"} <= orjson.loads(line).keys()


@given(texts)
def test_any_detail_can_be_answered(detail: str) -> None:
    error = ServiceError(detail)
    assert orjson.loads(orjson.dumps(problem(error)))["status"] == 500
    assert error.failure().model_dump_json()


def test_plain_data_stays_as_it_is() -> None:
    found = {"a": [1, 2.5, None, True, "ü"], "largest": 2**64 - 1, "backslash": "\\u0000"}
    assert plain.data(found) == found
    assert orjson.loads(plain.json(found)) == found


def test_a_wide_value_is_cut_in_all_and_not_only_at_each_level() -> None:
    wide: list[Any] = ["leaf"]
    for _ in range(12):
        wide = [wide] * 12
    assert len(plain.json(wide)) < 500_000
    assert len(plain.json(["x" * 10_000] * 1_000)) < 2_000_000


def test_an_integer_over_64_bits_becomes_the_text_of_its_digits() -> None:
    assert plain.data(10**20) == "100000000000000000000"


def test_a_record_that_cannot_be_formatted_is_named_without_its_arguments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = stdlib.getLogger()
    before = root.handlers[:], root.level
    logging.configure(service="gateway", level="INFO", style="json")
    try:
        stdlib.getLogger("a.library").warning("%d of them", "secret words")
    finally:
        root.handlers[:], root.level = before
        logging.Verbosity.brief_lines = None
    said = capsys.readouterr().err
    assert "secret words" not in said
    assert "log record cannot be written" in said


def test_a_closed_reader_of_the_log_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, _: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    lines: Any = logging.Lines(Gone())  # type: ignore[arg-type]  # as much of a stream as is used
    lines.info("nobody reads this")
