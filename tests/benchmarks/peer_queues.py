"""The peers that consume queues: Dramatiq, Celery and Taskiq, each a worker process and a separate sender.

All have durable classic queues and persistent messages on the same broker, acknowledge an item when it is
done, have at most 128 on their way to the worker, and keep no result. Dramatiq and Celery have eight threads
in one process, Taskiq as many coroutines as items.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiormq
import psutil

from benchmarks.load import LoadResult
from benchmarks.programs import cpu_s, python
from support.waiting import until

_PREFETCH = 128
CELERY = "benchmarks.peers.celery_app"
_DRAMATIQ = "benchmarks.peers.dramatiq_noop"
_TASKIQ = "benchmarks.peers.taskiq_noop"
# The senders of items that do nothing.
SENDERS = {"Dramatiq": (_DRAMATIQ,), "Celery": (CELERY, "items"), "Taskiq": (_TASKIQ,)}
# Sends the same items to Celery in messages of 500: none of them has an outcome or a retry of its own.
CELERY_CHUNKS = (CELERY, "chunks")


@dataclass(frozen=True)
class PeerWorker:
    """A worker that waits for items, and the folder in which it writes down what it has done."""

    pid: int
    ledger: Path
    variables: dict[str, str]

    async def work_off(self, *sender: str, count: int | None = None, timeout_s: float = 120) -> LoadResult:
        """Run a sender and return how fast its items are done, from the first to the last.

        CPU is that of the worker. Without `count` it is what the sender says that it has sent, and the CPU of
        the sender is counted, too.
        """
        for name in ("begun", "sent", "done", "ended"):
            (self.ledger / name).write_bytes(b"")
        before_s, sender_s = cpu_s([self.pid]), 0.0
        async with python("-m", *sender, **self.variables):
            if count is None:
                await until(lambda: self._size("ended"), timeout_s=timeout_s, what=self._progress)
                count, sender_s = self._size("sent"), float((self.ledger / "ended").read_text())
            expected = count
            await until(lambda: self._size("done") >= expected, timeout_s=timeout_s, what=self._progress)
            ended = time.time()
        used_s = cpu_s([self.pid]) - before_s + sender_s
        begun = float((self.ledger / "begun").read_text())
        return LoadResult(expected / (ended - begun), 1e6 * used_s / expected)

    def _size(self, name: str) -> int:
        return (self.ledger / name).stat().st_size

    def _progress(self) -> str:
        return f"{self._size('done')} items were done"


@asynccontextmanager
async def worker(peer: str, broker_url: str, *, threads: int = 8) -> AsyncIterator[PeerWorker]:
    """Run a worker of `peer` for the length of the block; it is ready when the block begins."""
    with tempfile.TemporaryDirectory(prefix="tickwire-bench-") as folder:
        queue = f"noop-{peer.lower()}"
        variables = {
            "RABBITMQ_URL": broker_url,
            "LEDGER": folder,
            "QUEUE": queue,
            "PREFETCH": str(_PREFETCH),
            "PREFETCH_MULTIPLIER": str(max(1, _PREFETCH // threads)),
            "dramatiq_queue_prefetch": str(_PREFETCH),
        }
        async with python("-m", *_command(peer, threads), **variables) as pid:

            async def is_ready() -> bool:
                if not psutil.pid_exists(pid):
                    raise RuntimeError(f"the worker of {peer} has ended")
                # The consumer is the last step of their start.
                return await _has_consumer(broker_url, queue)

            await until(is_ready, timeout_s=60, what=lambda: f"the worker of {peer} is ready")
            yield PeerWorker(pid, Path(folder), variables)


async def items_per_second(
    peer: str, broker_url: str, *, count: int, sender: Sequence[str] = ()
) -> LoadResult:
    """Return how fast a worker of `peer` does items that do nothing, which are sent meanwhile.

    They are sent one a message, unless another `sender` is named.
    """
    async with worker(peer, broker_url) as running:
        for wanted in (max(1, count // 20), count):
            found = await running.work_off(*(sender or SENDERS[peer]), str(wanted), count=wanted)
    return found


async def celery_tasks(running: PeerWorker, *, seconds: int) -> LoadResult:
    """Return how fast tasks are done that 32 threads send one by one, each with the broker's confirmation."""
    return await running.work_off(CELERY, "tasks", str(seconds))


async def celery_mails(running: PeerWorker, *, count: int, smtp_port: int) -> LoadResult:
    """Return how fast Celery delivers mails, over a connection each."""
    return await running.work_off(CELERY, "mails", str(count), str(smtp_port), count=count)


def _command(peer: str, threads: int) -> tuple[str, ...]:
    if peer == "Dramatiq":
        return ("dramatiq", _DRAMATIQ, "--processes", "1", "--threads", str(threads))
    if peer == "Celery":
        pool = ("--pool", "threads", "--concurrency", str(threads))
        return ("celery", "--app", CELERY, "worker", *pool, "--without-gossip", "--without-mingle")
    most = ("--workers", "1", "--max-async-tasks", str(_PREFETCH))
    return ("taskiq", "worker", f"{_TASKIQ}:broker", *most, "--log-level", "WARNING")


async def _has_consumer(url: str, queue: str) -> bool:
    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel()
        declared = await channel.queue_declare(queue, passive=True)
        return bool(declared.consumer_count)
    except aiormq.exceptions.ChannelNotFoundEntity:
        return False
    finally:
        await connection.close()
