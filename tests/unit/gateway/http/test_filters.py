"""The grammar of filters: what a list and a bulk action accept, and what is refused."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ValidationError

from gateway.http.filters import Bulk, CreatedWithin, Id, PageQuery, Several

Status = Literal["failed", "expired"]


class ThingFilter(CreatedWithin):
    place: Literal["here", "there"]
    status: Several[Status] | None = None
    ids: Several[Id] | None = None


class ThingsQuery(ThingFilter, PageQuery): ...


class ThingsBulk(ThingFilter, Bulk): ...


def read(model: type[BaseModel], **given: str) -> Any:
    return model.model_validate_strings({"place": "here", **given})


def test_values_separated_by_commas_are_alternatives() -> None:
    query = read(ThingsQuery, status="failed,expired", ids="1,22")
    assert (query.status, query.ids) == (["failed", "expired"], [1, 22])


def test_a_list_takes_its_filter_a_limit_and_a_cursor() -> None:
    query = read(ThingsQuery, created_after="2026-01-02T03:04:05Z", limit="7", cursor="next")
    assert (query.limit, query.cursor) == (7, "next")
    assert list(query.chosen) == ["created_after"]


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        ("status", ""),
        ("status", "failed,"),
        ("status", "failed,lost"),
        ("status", "Failed"),
        ("ids", "1,1_0"),
        ("ids", "1, 2"),
        ("ids", "-1"),
        ("ids", "0"),
        ("ids", "9223372036854775808"),
        ("ids", ",".join(["1"] * 101)),
        ("created_after", "1700000000"),
        ("created_before", "2026-01-02T03:04:05"),
        ("dry_run", "1"),
        ("dry_run", "yes"),
        ("colour", "red"),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused_by_name(parameter: str, text: str) -> None:
    given = {"status": "failed", parameter: text}
    with pytest.raises(ValidationError) as refused:
        read(ThingsBulk, **given)
    assert {error["loc"][0] for error in refused.value.errors()} == {parameter}


def test_a_bulk_action_without_a_filter_is_refused_and_says_what_to_give() -> None:
    with pytest.raises(ValidationError, match=r"at least one of created_after, created_before, status, ids:"):
        read(ThingsBulk, dry_run="true")


def test_a_bulk_action_changes_things_unless_it_is_a_dry_run() -> None:
    assert read(ThingsBulk, status="failed").dry_run is False
    assert read(ThingsBulk, status="failed", dry_run="false").dry_run is False
    assert read(ThingsBulk, status="failed", dry_run="true").dry_run is True
