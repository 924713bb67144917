"""The options of batches: valid ones, refused ones with their place, and those of other releases."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from contracts import batch_options
from contracts.batch_options import BatchOptions, ToleratedFailure


def test_options_are_sent_as_they_were_given_and_read_again() -> None:
    options = BatchOptions.model_validate({"priority": "high", "tolerated_failure": {"percent": 2.5}})
    assert options.to_message() == {"priority": "high", "tolerated_failure": {"percent": 2.5}}
    assert batch_options.read(options.to_message()) == options
    assert BatchOptions().to_message() == {}


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"urgent": True}, ("urgent",)),
        ({"priority": "highest"}, ("priority",)),
        ({"priority": 5}, ("priority",)),
        ({"tolerated_failure": {}}, ("tolerated_failure",)),
        ({"tolerated_failure": {"count": -1}}, ("tolerated_failure", "count")),
        ({"tolerated_failure": {"count": True}}, ("tolerated_failure", "count")),
        ({"tolerated_failure": {"percent": 101}}, ("tolerated_failure", "percent")),
        ({"tolerated_failure": {"share": 1}}, ("tolerated_failure", "share")),
    ],
)
def test_an_option_that_is_unknown_or_out_of_bounds_is_refused_with_its_place(
    options: dict[str, Any], where: tuple[str, ...]
) -> None:
    with pytest.raises(ValidationError) as caught:
        BatchOptions.model_validate(options)
    assert [error["loc"] for error in caught.value.errors()] == [where]


def test_a_message_of_another_release_is_read_as_far_as_it_can_be() -> None:
    reported = {"priority": 7, "colour": "red", "tolerated_failure": {"count": 3}}
    assert batch_options.read(reported) == BatchOptions(tolerated_failure=ToleratedFailure(count=3))


@pytest.mark.parametrize(
    ("tolerated", "most"),
    [({"count": 0}, 0), ({"percent": 10}, 5), ({"count": 3, "percent": 10}, 3), ({"percent": 100}, 50)],
)
def test_the_smaller_of_count_and_share_decides(tolerated: dict[str, Any], most: int) -> None:
    tolerance = ToleratedFailure.model_validate(tolerated)
    assert tolerance.allows(most, total=50)
    assert not tolerance.allows(most + 1, total=50)
