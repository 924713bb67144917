"""The operation, called as a function and run by a worker."""

from __future__ import annotations

from batch_processor.testing import Outcome, running_worker


async def test_words_are_counted_by_a_worker() -> None:
    async with running_worker() as worker:
        counted, empty, refused = await worker.run(
            "text.words", {"text": "to be or not to be", "most": 2}, {"text": ""}, {"txt": "?"}
        )
    assert counted == Outcome("succeeded", {"words": 6, "frequent": {"to": 2, "be": 2}})
    assert empty == Outcome("succeeded", {"words": 0, "frequent": {}})
    assert (refused.status, refused.code) == ("failed", "invalid-item")
