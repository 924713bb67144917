"""The schema of each message equals its snapshot: a change of schema is a decision, not an accident."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
from pathlib import Path

import pytest

import contracts
from contracts import message, stocks
from contracts.message import Contract, Message, Reply

SNAPSHOTS = Path(__file__).with_name("snapshots")


def shapes() -> dict[str, type[Contract]]:
    """Return the messages and replies of all modules; those of `contracts.message` are base classes."""
    found = [module.name for module in pkgutil.iter_modules(contracts.__path__, "contracts.")]
    return {
        f"{name.partition('.')[2]}.{kind.__name__}": kind
        for name in found
        for _, kind in inspect.getmembers(importlib.import_module(name), inspect.isclass)
        if issubclass(kind, Message | Reply) and kind.__module__ == name != message.__name__
    }


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
