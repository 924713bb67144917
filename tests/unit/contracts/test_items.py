"""The forms of a batch item that every interface takes."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.items import custom_id_of, payload_of


@pytest.mark.parametrize(
    ("value", "custom_id", "payload"),
    [
        (7, None, 7),
        (None, None, None),
        ([1, {"payload": 2}], None, [1, {"payload": 2}]),
        ({"a": 1}, None, {"a": 1}),
        ({"payload": 3}, None, 3),
        ({"custom_id": "x", "payload": {"payload": 1}}, "x", {"payload": 1}),
        ({"custom_id": None, "payload": 1}, None, 1),
        ({"custom_id": "x"}, None, {"custom_id": "x"}),
        ({"custom_id": "x", "payload": 1, "more": 2}, None, {"custom_id": "x", "payload": 1, "more": 2}),
    ],
)
def test_only_custom_id_and_payload_together_are_unwrapped(
    value: Any, custom_id: str | None, payload: Any
) -> None:
    assert (custom_id_of(value), payload_of(value)) == (custom_id, payload)


@pytest.mark.parametrize("custom_id", [1, "", "x" * 256, [], {}])
def test_a_custom_id_is_a_short_text(custom_id: object) -> None:
    with pytest.raises(ValueError, match="custom_id"):
        custom_id_of({"custom_id": custom_id, "payload": 1})
