"""The operation: what the gateway refuses, and what a worker makes of an item."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from text_words.words import words

from batch_processor.testing import Outcome, running_worker

# The gateway validates with the same options.
GATEWAY = jsonschema_rs.validator_for(
    words.item_schema, offline=True, pattern_options=jsonschema_rs.RegexOptions()
)


def test_the_gateway_accepts_what_fits() -> None:
    assert GATEWAY.is_valid({"text": "to be or not to be", "most": 2})


@pytest.mark.parametrize("payload", [{}, {"text": 5}, {"text": "?", "most": 101}, {"text": "?", "mots": 1}])
def test_the_gateway_refuses_what_does_not_fit(payload: dict[str, Any]) -> None:
    assert not GATEWAY.is_valid(payload)


async def test_words_are_counted_by_a_worker() -> None:
    async with running_worker() as worker:
        counted, empty, refused = await worker.run(
            "text.words", {"text": "to be or not to be", "most": 2}, {"text": ""}, {"txt": "?"}
        )
    assert counted == Outcome("succeeded", {"words": 6, "frequent": {"to": 2, "be": 2}})
    assert empty == Outcome("succeeded", {"words": 0, "frequent": {}})
    assert (refused.status, refused.code) == ("failed", "invalid-item")
