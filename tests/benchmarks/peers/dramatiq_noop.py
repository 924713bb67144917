"""The peer of batches: a Dramatiq actor that does nothing and keeps no result, on the same broker.

`dramatiq_noop.py COUNT` enqueues; the worker is started with `python -m dramatiq dramatiq_noop`. The last
item makes the file that `NOOP_DONE` names.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

dramatiq.set_broker(RabbitmqBroker(url=os.environ["RABBITMQ_URL"]))

_handled = itertools.count(1)
_last = int(os.environ["NOOP_COUNT"])


@dramatiq.actor(queue_name="noop")
def noop(_: int) -> None:
    if next(_handled) == _last:
        Path(os.environ["NOOP_DONE"]).touch()


if __name__ == "__main__":
    for number in range(int(sys.argv[1])):
        noop.send(number)
    # Without this the last messages may still be on their way when the process, and its socket, are gone.
    dramatiq.get_broker().close()
