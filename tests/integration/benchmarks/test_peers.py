"""The peers of the benchmark do, on a real broker at a small scale, the work that they are measured by."""

from __future__ import annotations

import psutil
import pytest

from benchmarks import peer_queues
from benchmarks.letters import BenchLetter
from benchmarks.peer_queues import SENDERS
from support.doubles import smtp


@pytest.mark.long
@pytest.mark.parametrize("peer", SENDERS)
async def test_each_peer_does_every_item_and_leaves_no_process(peer: str, broker_url: str) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    found = await peer_queues.items_per_second(peer, broker_url, count=60)
    assert found.per_second > 0
    assert found.cpu_us is not None
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert [child.cmdline() for child in left if "benchmarks" in " ".join(child.cmdline())] == []


async def test_celery_does_every_item_of_messages_that_have_several(broker_url: str) -> None:
    found = await peer_queues.items_per_second(
        "Celery", broker_url, count=1200, sender=peer_queues.CELERY_CHUNKS
    )
    assert found.per_second > 0


async def test_tasks_that_are_sent_one_by_one_are_counted_by_the_sender(broker_url: str) -> None:
    async with peer_queues.worker("Celery", broker_url) as worker:
        found = await peer_queues.celery_tasks(worker, seconds=1)
        sent, done = ((worker.ledger / name).stat().st_size for name in ("sent", "done"))
    assert sent == done > 0
    assert found.cpu_us is not None


async def test_the_mail_of_celery_is_the_same_and_has_a_connection_of_its_own(broker_url: str) -> None:
    # Its client does not pipeline, which the double would wait for.
    receiver = smtp.SmtpServer(extensions=["8BITMIME"])
    worker_of = peer_queues.worker("Celery", broker_url, threads=4)
    async with smtp.running(receiver) as server, worker_of as worker:
        await peer_queues.celery_mails(worker, count=6, smtp_port=server.port)
        received = sorted(server.received, key=lambda mail: mail.message["Subject"])
        assert server.connections == len({mail.connection for mail in received}) == 6
    for number, mail in enumerate(received):
        letter, message = BenchLetter.of(number), mail.message
        assert (message["From"], message["To"], message["Subject"]) == (
            letter.sender,
            letter.to,
            letter.subject,
        )
        assert message.get_content().replace("\r\n", "\n") == letter.text


async def test_a_worker_that_ends_at_once_is_not_waited_for(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_queues, "CELERY", "benchmarks.peers.missing")
    with pytest.raises(RuntimeError, match="the worker of Celery has ended"):
        async with peer_queues.worker("Celery", broker_url):
            pass


async def test_a_worker_that_does_not_do_its_items_is_given_up(broker_url: str) -> None:
    async with peer_queues.worker("Celery", broker_url) as worker:
        with pytest.raises(AssertionError, match="items were done"):
            await worker.work_off(*SENDERS["Celery"], "5", count=6, timeout_s=3)
