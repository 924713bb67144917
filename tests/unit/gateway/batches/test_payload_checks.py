"""Payloads compared with schemas: an error names its place, and does not contain the value."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from chassis.errors import InvalidInput
from contracts.mail import MailItem
from contracts.schema_rules import MOST_TOGETHER
from contracts.scopes import Scope
from gateway.batches.cutting import MOST_BAD_LINES, Cutter
from gateway.batches.inputs import BatchInput, FollowUpInput
from gateway.batches.operations import Lend, OperationCatalogue, Payloads
from gateway.batches.payload_checks import MOST_ERRORS, PayloadCheck, find_all
from gateway.http.principal import Principal
from support.doubles.statements import AnsweredConnection

ANN = Principal(7, "Ann", "member", "k7", frozenset({Scope.BATCHES_WRITE}))
READERS = [f"reader-{number}@example.com" for number in range(51)]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 1},
        "a/b": {"anyOf": [{"type": "string", "pattern": "^x+$"}, {"type": "null"}]},
        "list": {"type": "array", "items": {"$ref": "#/$defs/Word"}},
    },
    "required": ["n"],
    "additionalProperties": False,
    "$defs": {"Word": {"type": "string", "maxLength": 3}},
}


@dataclass
class Announced:
    """The database of the gateway, as far as it has operations."""

    schemas: dict[str, dict[str, Any]] = field(default_factory=lambda: {"checked": SCHEMA, "free": {}})
    reads: int = 0

    def catalogue(self) -> OperationCatalogue:
        return OperationCatalogue(cast(Lend, self.connection))

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AnsweredConnection]:
        yield AnsweredConnection(self)

    async def list_operations(self) -> list[dict[str, Any]]:
        self.reads += 1
        return [
            {"name": name, "description": "", "item_schema": json.dumps(schema), "required_scopes": []}
            for name, schema in self.schemas.items()
        ]


def one(payload: Any) -> Payloads:
    return lambda: [("/payload", payload)]


@pytest.mark.parametrize(
    ("payload", "pointer", "detail"),
    [
        ({}, "", '"n" is a required property'),
        ([], "", 'the value is not of type "object"'),
        ({"n": "secret"}, "/n", 'the value is not of type "integer"'),
        ({"n": 0}, "/n", "the value is less than the minimum of 1"),
        ({"n": 1, "a/b": "y"}, "/a~1b", 'the value does not match "^x+$"'),
        ({"n": 1, "list": ["abc", "abcd"]}, "/list/1", "the value is longer than 3 characters"),
    ],
)
def test_the_first_misfit_is_reported_with_its_place_and_without_the_value(
    payload: Any, pointer: str, detail: str
) -> None:
    found = PayloadCheck(SCHEMA).find(payload)
    assert found is not None
    assert (found.pointer, found.detail) == (pointer, detail)


def test_a_value_that_is_too_long_is_refused_with_the_description_that_says_what_to_do() -> None:
    word = {"type": "string", "maxLength": 3, "description": "Up to three letters; spell longer words."}
    reported = "the value is longer than 3 characters"
    for schema, detail in (
        ({"properties": {"a": word}}, f"{reported}: {word['description']}"),
        (
            {"properties": {"a": {"$ref": "#/$defs/W"}}, "$defs": {"W": word}},
            f"{reported}: {word['description']}",
        ),
        ({"properties": {"a": {"type": "string", "maxLength": 3}}}, reported),
    ):
        found = PayloadCheck(schema).find({"a": "four"})
        assert found is not None
        assert (found.pointer, found.detail) == ("/a", detail)
    # The path of an error within a schema that has an id begins there.
    apart = {"$id": "https://example.org/word", **word}
    found = PayloadCheck({"properties": {"a": {"$ref": "#/$defs/W"}}, "$defs": {"W": apart}}).find(
        {"a": "four"}
    )
    assert found is not None
    assert found.detail.startswith(reported)


@pytest.mark.parametrize(
    ("mail", "detail"),
    [
        ({"text": "t"}, "to, cc and bcc together must name 1 to 50 recipients"),
        ({"to": "ann@example.com"}, "text, html or both must be given, or a template"),
        (
            {"to": READERS[:17], "cc": READERS[17:34], "bcc": READERS[34:], "text": "t"},
            "to, cc and bcc together must name 1 to 50 recipients",
        ),
        (
            {"to": READERS[:50], "bcc": "ann@example.com", "text": "t"},
            "to, cc and bcc together must name 1 to 50 recipients",
        ),
    ],
)
def test_a_mail_without_recipients_or_content_or_with_too_many_recipients_is_refused_with_the_rule(
    mail: Any, detail: str
) -> None:
    found = PayloadCheck(MailItem.model_json_schema()).find(mail)
    assert found is not None
    assert found.detail.endswith(detail)


@pytest.mark.parametrize(
    "mail",
    [
        {"to": READERS[:17], "cc": READERS[17:34], "bcc": READERS[34:50]},
        {"to": "ann@example.com", "bcc": READERS[:49]},
        {"cc": READERS[:50]},
    ],
)
def test_a_mail_with_as_many_recipients_as_it_may_have_is_taken(mail: Any) -> None:
    assert PayloadCheck(MailItem.model_json_schema()).find({**mail, "text": "t"}) is None


def test_a_line_with_more_recipients_than_a_mail_may_have_is_named() -> None:
    cutter = Cutter(check=PayloadCheck(MailItem.model_json_schema()))
    for mail in ({"to": READERS[:50], "text": "t"}, {"to": READERS[:26], "cc": READERS[26:], "text": "t"}):
        cutter.feed(json.dumps({"payload": mail}).encode() + b"\n")
    with pytest.raises(InvalidInput, match="Line 2 does not fit the operation: to, cc and bcc") as refused:
        cutter.finish()
    assert [error.pointer for error in refused.value.errors] == ["/1/payload"]


def test_a_rule_of_ours_in_a_form_that_is_not_known_is_an_error_of_the_schema() -> None:
    with pytest.raises(ValueError, match="must have names and most"):
        PayloadCheck({MOST_TOGETHER: 50})


def test_a_name_that_is_not_known_is_named_and_cut() -> None:
    found = PayloadCheck(SCHEMA).find({"n": 1, "z" * 10_000: 1})
    assert found is not None
    assert "zzz" in found.detail
    assert len(found.detail) < 400


def test_a_long_name_is_cut_in_the_pointer_to_its_value() -> None:
    found = PayloadCheck({"additionalProperties": {"type": "string"}}).find({"~" * 900_000: 1})
    assert found is not None
    assert found.pointer == f"/{'~0' * 200}…"


@pytest.mark.parametrize("payload", [{"n": 1}, {"n": 3, "a/b": None, "list": []}, {"n": 1.0}])
def test_a_payload_that_fits_has_no_misfit(payload: Any) -> None:
    assert PayloadCheck(SCHEMA).find(payload) is None


@pytest.mark.parametrize("reference", ["http://127.0.0.1:1/schema", "file:///etc/passwd"])
def test_a_schema_that_refers_elsewhere_fetches_nothing(reference: str) -> None:
    with pytest.raises(ValueError, match="not present in a registry"):
        PayloadCheck({"$ref": reference})


def test_a_backtracking_pattern_is_matched_without_going_back() -> None:
    check = PayloadCheck({"type": "string", "pattern": "^(a+)+$"})
    # Going back, there are more ways than anybody could try.
    assert check.find("a" * 100_000 + "b") is not None


async def turns_of_others(check: PayloadCheck, payloads: Sequence[tuple[str, Any]]) -> int:
    """Return how often another task has its turn while the payloads, which are valid, are checked."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    assert await find_all(check, payloads) == []
    counting.cancel()
    return turns


async def test_few_large_payloads_let_others_have_their_turns_between_them() -> None:
    numbers = PayloadCheck({"type": "array", "items": {"type": "number", "minimum": 0}})
    assert await turns_of_others(numbers, [(f"/items/{n}", list(range(100_000))) for n in range(20)]) >= 10


async def test_a_bounded_number_of_misfits_is_listed_and_the_event_loop_is_not_held_up() -> None:
    payloads = [(f"/items/{n}", {"n": n % 2}) for n in range(3000)]
    assert await turns_of_others(PayloadCheck(SCHEMA), [(at, {"n": 1}) for at, _ in payloads]) >= 10
    found = await find_all(PayloadCheck(SCHEMA), payloads)
    assert [error.pointer for error in found] == [f"/items/{2 * n}/n" for n in range(MOST_ERRORS)]


def test_items_are_found_where_they_are_in_the_document() -> None:
    batch = BatchInput(operation="checked", items=[{"n": 1}, {"custom_id": "b", "payload": {"n": 2}}])
    assert list(batch.payloads("items")) == [("/items/0", {"n": 1}), ("/items/1/payload", {"n": 2})]


async def test_a_payload_that_does_not_fit_is_refused_before_anything_is_promised() -> None:
    catalogue = Announced().catalogue()
    await catalogue.permit(ANN, "checked", one({"n": 1}))
    with pytest.raises(InvalidInput, match=r"/payload/n does not fit the operation 'checked'") as refused:
        await catalogue.permit(ANN, "checked", one({"n": "1"}))
    assert [error.pointer for error in refused.value.errors] == ["/payload/n"]


async def test_the_payload_of_the_task_that_follows_is_validated_too() -> None:
    catalogue = Announced().catalogue()
    following = FollowUpInput(operation="checked", payload={"n": 0})
    with pytest.raises(InvalidInput) as refused:
        await catalogue.permit(ANN, "free", one("anything"), following=following)
    assert [error.pointer for error in refused.value.errors] == ["/on_finished/payload/n"]


async def test_a_schema_that_was_announced_meanwhile_decides() -> None:
    announced = Announced()
    catalogue = announced.catalogue()
    await catalogue.permit(ANN, "checked", one({"n": 1}))
    announced.schemas["checked"] = {"type": "object"}
    await catalogue.permit(ANN, "checked", one({"n": "1"}))
    assert announced.reads == 2
    await catalogue.permit(ANN, "checked", one({"n": "1"}))
    assert announced.reads == 2


async def test_an_operation_with_a_schema_that_cannot_be_used_takes_everything() -> None:
    announced = Announced({"checked": {"type": "nonsense"}})
    await announced.catalogue().permit(ANN, "checked", one(1))
    assert await announced.catalogue().check_of("checked") is None


def test_the_first_bad_lines_of_an_upload_are_listed_with_their_places() -> None:
    cutter = Cutter(check=PayloadCheck(SCHEMA))
    cutter.feed(b'{"payload":{"n":1}}\n\n{"payload":{"n":0}}\n{"payload":{"n":2}}\n{"payload":[]}\n')
    with pytest.raises(InvalidInput, match="Line 3 does not fit the operation: the value is less") as refused:
        cutter.finish()
    assert [error.pointer for error in refused.value.errors] == ["/2/payload/n", "/4/payload"]
    cutter = Cutter(check=PayloadCheck(SCHEMA))
    with pytest.raises(InvalidInput) as refused:
        cutter.feed(b'{"payload":{"n":0}}\n' * 100)
    assert len(refused.value.errors) == MOST_BAD_LINES
