"""The schema of each message equals its snapshot: a change of schema is a decision, not an accident."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from contracts import (
    alerts,
    backups,
    batch_items,
    batches,
    domains,
    emails,
    gateways,
    operations,
    parked,
    pauses,
    retention,
    schedules,
    stocks,
    suppressions,
    templates,
    uploads,
)
from contracts.message import Contract, Message, Reply

MODULES = (
    *(stocks, emails, batches, batch_items, operations, parked, alerts, uploads, domains, suppressions),
    *(templates, retention, backups),
)
SNAPSHOTS = Path(__file__).with_name("snapshots")


def shapes() -> dict[str, type[Contract]]:
    found: dict[str, type[Contract]] = {}
    for module in (
        stocks,
        emails,
        batches,
        batch_items,
        operations,
        parked,
        alerts,
        uploads,
        domains,
        gateways,
        suppressions,
        pauses,
        schedules,
        retention,
        templates,
        backups,
    ):
        for name, value in vars(module).items():
            if (
                isinstance(value, type)
                and issubclass(value, Message | Reply)
                and value.__module__ == module.__name__
            ):
                found[f"{module.__name__.split('.')[1]}.{name}"] = value
    return found


@pytest.mark.parametrize("name", sorted(shapes()))
def test_a_message_has_the_shape_that_was_agreed(name: str) -> None:
    schema = json.dumps(shapes()[name].model_json_schema(), indent=1, sort_keys=True) + "\n"
    file = SNAPSHOTS / f"{name}.json"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.write_text(schema)
    assert file.exists(), "a new message: run the tests once with UPDATE_SNAPSHOTS=1 and review the file"
    assert file.read_text() == schema, "other versions of the services may still send the old shape"


def test_there_is_no_snapshot_without_a_message() -> None:
    assert {file.stem for file in SNAPSHOTS.glob("*.json")} == set(shapes())


def test_an_older_reader_ignores_what_a_newer_sender_adds() -> None:
    text = '{"symbols":["A"],"added_later":{"x":1}}'
    assert stocks.GetQuotes.model_validate_json(text).symbols == ["A"]
