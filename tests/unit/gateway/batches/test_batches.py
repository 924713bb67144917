"""Batches and tasks as JSON: valid items, and the documents that are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from chassis.problems import pointer
from chassis.validation import errors_in, words
from gateway.batches.inputs import BatchInput, ResultsQuery, TaskInput


def test_the_same_custom_id_twice_is_refused() -> None:
    items = [{"custom_id": "a", "payload": 1}, 5, {"custom_id": "a", "payload": 2}]
    with pytest.raises(ValidationError, match="'a' is used twice"):
        BatchInput(operation="echo", items=items)


@pytest.mark.parametrize(
    ("named", "detail"),
    [("a", "the custom_id 'a' is used twice"), ("{0}", "'{0}' is used twice"), (5, "1 to 255 characters")],
)
def test_the_error_of_a_custom_id_has_its_place(named: object, detail: str) -> None:
    items = [{"custom_id": "a", "payload": 1}, {"custom_id": "{0}", "payload": 1}, 5]
    with pytest.raises(ValidationError) as caught:
        BatchInput.model_validate(
            {"operation": "echo", "items": [*items, {"custom_id": named, "payload": 2}]}
        )
    (error,) = errors_in(caught.value)
    assert pointer(error["loc"]) == "/items/3/custom_id"
    assert words(error).endswith(detail)


def test_a_repetition_at_the_end_of_a_large_batch_is_found_at_once() -> None:
    items = [{"custom_id": str(number), "payload": 1} for number in range(99_999)]
    # Where each is compared with each, this takes longer than a test may.
    with pytest.raises(ValidationError, match="'99998' is used twice"):
        BatchInput(operation="echo", items=[*items, {"custom_id": "99998", "payload": 1}])


@pytest.mark.parametrize("operation", ["", "Echo", "a b", "9a", "a\0", "x" * 101, "é"])
def test_an_operation_has_a_plain_name(operation: str) -> None:
    with pytest.raises(ValidationError):
        BatchInput(operation=operation, items=[1])


def test_options_that_do_not_exist_are_refused_where_they_are() -> None:
    with pytest.raises(ValidationError) as caught:
        BatchInput.model_validate({"operation": "echo", "items": [1], "options": {"urgent": True}})
    assert [error["loc"] for error in caught.value.errors()] == [("options", "urgent")]


@pytest.mark.parametrize("items", [[], {}, "text", None])
def test_items_are_a_list_of_at_least_one(items: Any) -> None:
    with pytest.raises(ValidationError):
        BatchInput(operation="echo", items=items)


@pytest.mark.parametrize(
    "change",
    [{"delay_s": -1}, {"delay_s": 31 * 86_400}, {"priority": 10}, {"unique_key": ""}, {"surprise": 1}],
)
def test_a_task_refuses_values_that_are_out_of_bounds(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TaskInput.model_validate({"operation": "echo", **change})


def test_a_task_has_defaults() -> None:
    task = TaskInput.model_validate({"operation": "echo"})
    assert (task.payload, task.delay_s, task.priority, task.unique_key) == (None, 0, 5, None)


def test_results_are_asked_for_in_pages_of_up_to_5000() -> None:
    assert ResultsQuery().limit == 1000
    with pytest.raises(ValidationError):
        ResultsQuery(limit=5001)
