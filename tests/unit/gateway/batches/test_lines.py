"""Lines that are read together are refused and kept as those that are read alone."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chassis.broker.envelope import new_id
from chassis.errors import InvalidInput
from contracts.batches import AppendItems
from contracts.json_texts import members, names_at, payloads_at
from gateway.batches import uploads
from gateway.batches.cutting import Cutter, Run
from gateway.batches.lines import read_alone, read_together
from gateway.batches.payload_checks import PayloadCheck

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
PAYLOADS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.just("payload"), inner, max_size=3),
    max_leaves=6,
).filter(lambda payload: b"Infinity" not in json.dumps(payload).encode())
ITEMS = st.fixed_dictionaries({"payload": PAYLOADS}) | st.one_of(
    st.fixed_dictionaries({"custom_id": TEXT.filter(bool) | st.none(), "payload": PAYLOADS}),
    st.fixed_dictionaries({"payload": PAYLOADS, "custom_id": TEXT.filter(bool)}),
)
WRITERS = st.sampled_from(
    [orjson.dumps, lambda item: json.dumps(item).encode(), lambda item: b" %s\r" % orjson.dumps(item)]
)
# Each is valid somewhere within a document, and none is an item.
FRAGMENTS = st.sampled_from(
    [
        *(b'{"payload":[1', b"2]}", b'{"payload":1},{"payload":2}', b'{"payload":[{}', b"{}]}", b"1}"),
        *(b'{"payload":1}],[{"payload":2}', b"1", b"[]", b"{}", b'{"payload":', b'{"payload":"', b'"}'),
        *(b'{"payload":{"a":1,"a":2}}', b'{"payload":1,"payload":2}', b'{"payload":9007199254740993}'),
        *(b'{"payload": {"a, b": 1, "a, b": 1, "a,b": 1}}', b'{"payload":1e400}', b'{"payload":NaN}'),
        *(b'{"payload":"\\u0000"}', b'{"payload":1,"custom_id":""}', b'{"payload":1,"custom_id":7}'),
        *(b'{"payload":' + b"[" * 70 + b"]" * 70 + b"}", b'{"no":1}', b'{"p\\u0061yload":{"payload":1}}'),
        *(
            b'{"payload":0.1234567890123456789}',
            b'{"payload":1.10}',
            b"\xff",
            b'{"payload" :1, "payload" :1}',
        ),
    ]
)
LINES = st.builds(lambda item, write: write(item), ITEMS, WRITERS)


def cut(*parts: bytes) -> list[Run]:
    cutter = Cutter()
    return [*(run for part in parts for run in cutter.feed(part)), *cutter.finish()]


@given(
    st.lists(st.builds(lambda item, write: write(item), ITEMS, WRITERS) | FRAGMENTS, min_size=1, max_size=9)
)
@example([b'{"payload":1},{"payload":2}'])
@example([b'{"payload":0}', b'{"payload":1},{"payload":2}'])
@example([b'{"payload":1},{"payload":2}', b'{"payload":[1', b"2]}"])
@example([b'{"payload":1},{"payload":2}', b'{"payload":[{}', b"{}]}"])
def test_lines_are_taken_together_only_if_each_would_be_taken_alone(lines: list[bytes]) -> None:
    items = read_together(lines, None)
    if items is not None:
        assert items == [read_alone(line, None) for line in lines] == [orjson.loads(line) for line in lines]


@pytest.mark.parametrize("write", [orjson.dumps, lambda item: json.dumps(item).encode()])
def test_lines_as_programs_write_them_are_taken_together(write: Callable[[Any], bytes]) -> None:
    payloads = [1, -0.1 + 0.3, [1, 2], {"id": str(uuid.uuid4()), "text": "a, b: c"}, "1e5", None, {}, [[{}]]]
    lines = [write({"custom_id": str(n), "payload": payload}) for n, payload in enumerate(payloads)]
    assert read_together(lines, None) == [orjson.loads(line) for line in lines]


@given(st.lists(LINES, min_size=1, max_size=9))
def test_the_places_of_payloads_lead_to_the_texts_that_were_written(lines: list[bytes]) -> None:
    [run] = cut(b"\n".join(lines) + b"\n")
    if run.places is not None:
        body = uploads.append(new_id(), "owner", run).body
        wanted = [members(line.strip().decode())["payload"].encode() for line in lines]
        assert payloads_at(body, run.places) == wanted
        named = [orjson.loads(line).get("custom_id") for line in lines]
        assert (names_at(body, run.places) or [None] * len(lines)) == named
        read = AppendItems.read(body)
        assert (read.items, read.payloads_at, read.lines) == ([], run.places, run.lines)


def test_usual_lines_have_places() -> None:
    items = [{"payload": {"n": 1.5}}, {"custom_id": "Ä", "payload": "ß"}, {"payload": [], "custom_id": "z"}]
    items.append({"custom_id": 'a "quoted" \\ name', "payload": 1})
    for lines in ([orjson.dumps(item) for item in items], [json.dumps(items[0]).encode()] * 3):
        [run] = cut(b"\n".join(lines) + b"\n")
        assert run.places is not None
        assert len(run.places) == 2 * len(lines)


def test_lines_that_are_too_long_to_be_taken_together_have_places_too() -> None:
    long = [
        orjson.dumps({"payload": [[]] * 30_000}),
        orjson.dumps({"custom_id": "z", "payload": "x" * 80_000}),
    ]
    [run] = cut(b"\n".join([*long, b"", b'{"payload":1}', long[0]]) + b"\n")
    body = uploads.append(new_id(), "owner", run).body
    assert run.places is not None
    assert AppendItems.read(body).items == []
    wanted = [long[0][len(b'{"payload":') : -1], b'"' + b"x" * 80_000 + b'"', b"1"]
    assert payloads_at(body, run.places) == [*wanted, wanted[0]]
    assert names_at(body, run.places) == [None, "z", None, None]


def test_a_payload_that_does_not_fit_its_operation_is_refused_by_its_own_line() -> None:
    cutter = Cutter(check=PayloadCheck({"type": "integer"}))
    cutter.feed(b'{"payload":1}\n' * 30 + b'{"payload":"x"}\n' + b'{"payload":1}\n' * 30)
    with pytest.raises(InvalidInput) as refused:
        cutter.finish()
    assert [error.pointer for error in refused.value.errors] == ["/30/payload"]
