"""The peer of batches, single tasks and mails: Celery on the same broker, without results.

`celery_app.py items COUNT` enqueues items as fast as it can, `chunks COUNT` 500 of them a message, `tasks
SECONDS` enqueues one after the other from 32 threads, each confirmed by the broker, and `mails COUNT PORT`
enqueues mails for the SMTP server at `PORT`. The worker is started with `celery --app
benchmarks.peers.celery_app worker`.
"""

from __future__ import annotations

import os
import smtplib
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from email.message import EmailMessage

from celery import Celery

from benchmarks.letters import BenchLetter
from benchmarks.peers import ledger

SENDERS = 32
_ITEMS_A_MESSAGE = 500

app = Celery("peer", broker=os.environ["RABBITMQ_URL"])
app.conf.update(
    task_default_queue=os.environ["QUEUE"],
    task_ignore_result=True,
    # What a killed worker had begun is done again, as everywhere in this comparison.
    task_acks_late=True,
    worker_prefetch_multiplier=int(os.environ.get("PREFETCH_MULTIPLIER", "1")),
    worker_hijack_root_logger=False,
    broker_pool_limit=SENDERS,
    broker_connection_retry_on_startup=True,
)


def do_nothing(_: int) -> None:
    """Do an item."""
    ledger.mark_done()


def deliver(port: int, sender: str, to: str, subject: str, text: str) -> None:
    """Deliver one mail over a connection of its own."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, to, subject
    message.set_content(text)
    with smtplib.SMTP("127.0.0.1", port) as session:
        session.send_message(message)
    ledger.mark_done()


noop = app.task(name="noop")(do_nothing)
send_mail = app.task(name="send_mail")(deliver)


def send_items(count: int) -> None:
    for number in range(count):
        noop.delay(number)


def send_chunks(count: int) -> None:
    noop.chunks(((number,) for number in range(count)), _ITEMS_A_MESSAGE).apply_async()


def send_tasks(seconds: float) -> None:
    """Enqueue from as many threads as the HTTP load has connections; each waits for its confirmation."""
    app.conf.broker_transport_options = {"confirm_publish": True}
    end = time.monotonic() + seconds

    def send_some(_: int) -> None:
        while time.monotonic() < end:
            noop.delay(1)
            ledger.mark_sent()

    with ThreadPoolExecutor(SENDERS) as threads:
        list(threads.map(send_some, range(SENDERS)))


def send_mails(count: int, port: int) -> None:
    for number in range(count):
        send_mail.delay(port, **asdict(BenchLetter.of(number)))


if __name__ == "__main__":
    kind, *numbers = sys.argv[1:]
    ledger.begin()
    senders: dict[str, Callable[..., None]] = {
        "items": send_items,
        "chunks": send_chunks,
        "tasks": send_tasks,
        "mails": send_mails,
    }
    senders[kind](*map(int, numbers))
    app.close()
    ledger.end()
