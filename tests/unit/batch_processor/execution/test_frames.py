"""What an item process reports is not trusted: its items may have written to the connection themselves."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from batch_processor.errors import ProcessDied
from batch_processor.execution import frames
from batch_processor.execution.running_chunk import Outcomes
from chassis.broker import envelope
from chassis.broker.envelope import Outgoing
from contracts.batches import CancelBatch

COMMAND = envelope.command(CancelBatch(batch_id=envelope.new_id(), owner_id="ann"))


def reported(command: Outgoing) -> Outcomes:
    frame = frames.write_outcomes(Outcomes([0], ["1"], commands=[command]))
    return frames.read_outcomes(orjson.loads(frame[4:]), {0})


def test_commands_of_items_are_read_as_they_were_sent() -> None:
    assert reported(COMMAND).commands == [COMMAND]


@pytest.mark.parametrize("exchange", ["events", "replies", "batch-processor", ""])
def test_a_process_sends_nothing_but_commands(exchange: str) -> None:
    with pytest.raises(ProcessDied):
        reported(replace(COMMAND, exchange=exchange))
