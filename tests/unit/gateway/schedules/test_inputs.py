"""Templates of schedules: of one kind, within the rules of what they make, and complete at each run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.schedules.inputs import ScheduleChange, ScheduleInput, TemplateInput

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        ({}, "task"),
        ({"payload": None, "priority": 9}, "task"),
        ({"items": [1]}, "batch"),
        ({"items": [1], "options": {"priority": "high"}}, "batch"),
    ],
    ids=str,
)
def test_a_template_makes_a_task_or_a_batch(template: dict[str, Any], kind: str) -> None:
    assert TemplateInput.model_validate({"operation": "echo", **template}).kind == kind


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ({"payload": 1, "items": [1]}, "or payload and priority for a task"),
        ({"items": [1], "priority": 1}, "or payload and priority for a task"),
        ({"payload": 1, "options": {}}, "or payload and priority for a task"),
        ({"options": {}}, "give its items"),
        ({"items": []}, "at least 1"),
        ({"items": [1] * 1001}, "at most 1000"),
        ({"items": [{"custom_id": "a", "payload": 1}] * 2}, "is used twice"),
        ({"items": [1], "options": {"speed": 1}}, "Extra inputs"),
        ({"metadata": {"due_at": "now"}}, "each run sets its own due_at; omit them"),
        ({"metadata": {str(number): "" for number in range(19)}}, "at most 18"),
        ({"expires_in_s": 0}, "greater than 0"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_template_that_no_run_could_make_is_refused(template: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        TemplateInput.model_validate({"operation": "echo", **template})


def test_each_run_has_its_origin_and_a_deadline_of_its_own() -> None:
    origin = {"schedule_id": "7", "due_at": "noon"}
    wanted = {"operation": "echo", "metadata": {"report": "daily"}, "expires_in_s": 60}
    task = TemplateInput.model_validate({**wanted, "payload": 1, "priority": 7}).task(
        metadata=origin, begun_at=NOON
    )
    assert (task.payload, task.priority, task.expires_at) == (1, 7, NOON + timedelta(seconds=60))
    assert task.metadata == {"report": "daily", **origin}
    batch = TemplateInput.model_validate({**wanted, "items": [1, 2]}).batch(metadata=origin, begun_at=NOON)
    assert (batch.items, batch.metadata, batch.expires_at) == ([1, 2], task.metadata, task.expires_at)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "a\nb"),
        ("cron", "* * * * *" + " " * 100),
        ("overlap", "maybe"),
        ("missed", "twice"),
        ("catch_up_window_s", 59),
        ("catch_up_window_s", 31 * 86_400 + 1),
        ("jitter_s", 3601),
        ("jitter_s", -1),
    ],
)
def test_a_field_beyond_its_bound_is_refused_when_made_and_when_changed(field: str, value: object) -> None:
    whole = {"name": "n", "cron": "* * * * *", "template": {"operation": "echo"}}
    with pytest.raises(ValidationError):
        ScheduleInput.model_validate({**whole, field: value})
    with pytest.raises(ValidationError):
        ScheduleChange.model_validate({field: value})


def test_no_field_of_a_schedule_can_be_removed() -> None:
    for field in ScheduleChange.model_fields:
        with pytest.raises(ValidationError, match="must be omitted or have a value"):
            ScheduleChange.model_validate({field: None})
    assert "null" not in str(ScheduleChange.model_json_schema()["properties"])
