"""An upload goes through the files of batch-processor that the README names, and through no others."""

from __future__ import annotations

from chassis.broker.envelope import new_id
from support import ways
from support.batch_stack import BatchProcessors, Caller

# They run in the process of the items.
ELSEWHERE = {"batch_processor/execution/item_process.py", "batch_processor/execution/chunks.py"}


async def test_an_upload_enters_the_files_that_the_readme_names(
    house: BatchProcessors, caller: Caller
) -> None:
    way = ways.passing("an upload", "batch_processor/", "chassis/broker/consumer.py")
    await house.start(isolated=True)
    batch_id = new_id()
    with ways.followed(way) as entered:
        await caller.send(caller.append(batch_id, 0, list(range(100))))
        await caller.send(caller.seal(batch_id, 100))
        finished = await caller.reach(batch_id, "completed")
    assert finished.counts.succeeded == 100
    assert way - entered == ELSEWHERE
    assert ways.unnamed(entered, "an upload") == []
