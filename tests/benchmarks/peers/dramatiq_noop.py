"""The peer of batches: a Dramatiq actor that does nothing and keeps no result, on the same broker.

`dramatiq_noop.py COUNT` enqueues; the worker is started with `dramatiq benchmarks.peers.dramatiq_noop`.
"""

from __future__ import annotations

import os
import sys

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.peers import ledger

dramatiq.set_broker(RabbitmqBroker(url=os.environ["RABBITMQ_URL"]))


@dramatiq.actor(queue_name=os.environ["QUEUE"])
def noop(_: int) -> None:
    ledger.mark_done()


if __name__ == "__main__":
    ledger.begin()
    for number in range(int(sys.argv[1])):
        noop.send(number)
    # Without this the last messages may still be on their way when the process, and its socket, are gone.
    dramatiq.get_broker().close()
