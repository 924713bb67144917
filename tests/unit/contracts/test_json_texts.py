"""Values of JSON documents as they are written."""

from __future__ import annotations

import json

import pytest

from contracts.json_texts import elements, member, members, names_at, payloads

VALUES = [
    "1.10",
    "1e5",
    "-0.0",
    '"a\\u00e9\\/ü"',
    "[ 1 ,\n2.0]",
    '{"a" : {"payload":1.10}}',
    "null",
    "[]",
    "{}",
]


@pytest.mark.parametrize("space", ["", " ", "\n\t "])
def test_members_and_elements_are_found_as_they_are_written(space: str) -> None:
    inside = f"{space},{space}".join(f'"n{n}"{space}:{space}{value}' for n, value in enumerate(VALUES))
    assert list(members(f"{space}{{{space}{inside}{space}}}{space}").values()) == VALUES
    array = f"{space}[{space}{f'{space},{space}'.join(VALUES)}{space}]{space}"
    assert list(elements(array)) == VALUES
    assert (members(f"{{{space}}}"), list(elements(f"[{space}]"))) == ({}, [])


def test_names_are_read_and_not_compared_as_they_are_written() -> None:
    assert members('{"p\\u0061yload":1.10,"a,\\"b":2}') == {"payload": "1.10", 'a,"b': "2"}


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("space", ["", " "])
def test_a_member_is_found_whether_it_is_compact_or_not(value: str, space: str) -> None:
    document = f'{{"unique_key":"payload",{space}"payload":{space}{value}{space}}}'
    compact = json.dumps(json.loads(value), separators=(",", ":"), ensure_ascii=False)
    assert member(document.encode(), "payload", compact.encode()).decode() == value


def test_a_longer_number_is_not_taken_for_a_shorter_one() -> None:
    assert member(b'{"payload":1.10}', "payload", b"1.1") == b"1.10"


@pytest.mark.parametrize(
    ("other", "value", "compact"),
    [("1.1", "1.10", "1.1"), ('"a"', '"\\u0061"', '"a"'), ("[1.1]", "[ 1.1]", "[1.1]")],
)
def test_the_same_name_within_another_member_is_not_taken_for_it(
    other: str, value: str, compact: str
) -> None:
    before = f'{{"on_finished":{{"payload":{other}}},"payload":{value}}}'.encode()
    assert member(before, "payload", compact.encode()).decode() == value
    after = f'{{"p\\u0061yload":{value},"on_finished":{{"payload":{other}}}}}'.encode()
    assert member(after, "payload", compact.encode()).decode() == value
    command = f'{{"metadata":{{"payload":{other}}},"items":[{{"payload":{value}}}]}}'.encode()
    assert payloads(command, [compact.encode()]) == [value.encode()]


def test_payloads_of_a_command_are_as_they_are_written() -> None:
    head = '"options":{"payload":1.1,"items":[{"payload":7}]}'
    items = [f'{{"custom_id":"payload","payload":{value}}}' for value in VALUES]
    command = f'{{{head},"items":[{",".join(items)}]}}'.encode()
    compact = [json.dumps(json.loads(value), separators=(",", ":")).encode() for value in VALUES]
    assert [text.decode() for text in payloads(command, compact)] == VALUES


def test_an_item_without_a_payload_has_none() -> None:
    assert payloads(b'{"items":[{},{"payload":1.10}]}', [b"null", b"1.1"]) == [b"null", b"1.10"]


def test_compact_payloads_are_taken_without_parsing() -> None:
    command = b'{"items":[{"payload":1.5},{"custom_id":"b","payload":{"payload":2}},{"payload":"x"}]}'
    compact = [b"1.5", b'{"payload":2}', b'"x"']
    assert payloads(command, compact) == compact


def test_names_are_found_without_the_payloads_and_only_where_these_are() -> None:
    first, second = b'{"payload":', b'},{"custom_id":"\\u00e4","payload":'
    command = b'{"items":[' + first + b"[1]" + second + b' {"custom_id":7} }],"offset":3}'
    begin = len(first) + 3 + len(second)
    places = [len(first), len(first) + 3, begin, begin + 17]
    assert names_at(command, places) == [None, "ä"]
    for wrong in (places[:2], [*places[:3], begin + 18], [len(first) + 1, *places[1:]], places[:3]):
        with pytest.raises(ValueError, match=r"payload|length|expected|zip"):
            names_at(command, wrong)
    assert names_at(b'{"items":[{"payload":1},{"payload":2}]}', [11, 12, 25, 26]) is None
    assert names_at(b'{"items":[]}', []) == []
