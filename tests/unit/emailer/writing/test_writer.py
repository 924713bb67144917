"""Heavy mails are written in processes of low priority, light ones without them; the bytes are the same."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import uuid4

import dkim as oracle
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from chassis.errors import Overloaded
from contracts.parsed_addresses import ParsedAddress
from emailer import plain_text
from emailer.errors import UnwritableMail
from emailer.mails.letters import File, Letter
from emailer.mails.stored_mail import Signer, StoredMail
from emailer.workers.frames import NICENESS
from emailer.workers.processes import WorkerProcesses
from emailer.writing import rendering
from emailer.writing.writer import LIGHT_BYTES, MailWriter
from support.busy_threads import busy_threads
from support.waiting import until

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KEY = Ed25519PrivateKey.generate()
SIGNER = Signer(
    "example.com",
    "one",
    "ed25519",
    KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
)
HEAVY = "<p>Grüße, <b>Ann</b></p>" * 1000


def mail(
    *, owner_id: str = "o", files: tuple[File, ...] = (), signers: tuple[Signer, ...] = (), **parts: str
) -> StoredMail:
    sender = ParsedAddress("Ännchen", "a@example.com")
    letter = Letter(sender, "Hello", to=(sender,), files=files, **parts)  # type: ignore[arg-type]  # texts only
    return StoredMail(uuid4(), owner_id, letter, NOW, None, NOW, 20, None, None, signers=signers)


def written_here(of: StoredMail) -> bytes:
    assert of.letter is not None
    return rendering.render(of.letter, identity=f"<{of.id}@example.com>", at=NOW)


@pytest.fixture
async def writer() -> AsyncIterator[MailWriter]:
    made = MailWriter()
    yield made
    await made.close()


async def test_a_light_mail_is_written_without_a_process(writer: MailWriter) -> None:
    light = mail(text="x" * (LIGHT_BYTES - 2000), html="<b>short</b>")
    assert await writer.write(light) == written_here(light)
    assert writer.processes == ()


async def test_a_heavy_mail_is_written_by_a_process_of_low_priority_in_the_same_bytes(
    writer: MailWriter,
) -> None:
    files = (
        File("a.pdf", "application/pdf", bytes(range(256)) * 400),
        File("b.png", "image/png", b"", content_id="b"),
        File("c.ics", "text/calendar; method=REQUEST", b"BEGIN:VCALENDAR\r\n"),
    )
    heavy = mail(text="Hello", html=HEAVY, files=files)
    assert await writer.write(heavy) == written_here(heavy)
    (process,) = writer.processes
    assert psutil.Process(process.pid).nice() == psutil.Process().nice() + NICENESS
    assert "EMAIL_SECRETS_KEY" not in psutil.Process(process.pid).environ()


async def test_html_without_a_text_is_never_read_in_the_service(
    writer: MailWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = plain_text.from_html(HEAVY)

    def fail(_: str) -> str:
        raise AssertionError("this is read in the service")

    monkeypatch.setattr(plain_text, "from_html", fail)
    assert await writer.text_of(mail(html=HEAVY)) == expected
    assert b"Content-Type: text/html" in await writer.write(mail(html="<!--" * 1000))


@pytest.mark.parametrize("text", ["Hello", "y" * 2 * LIGHT_BYTES])
async def test_another_program_verifies_the_signatures(writer: MailWriter, text: str) -> None:
    content = await writer.write(mail(text=text, signers=(SIGNER,)))
    public = KEY.public_key().public_bytes_raw()

    def record(*_: object, **__: object) -> bytes:
        from base64 import b64encode

        return b"v=DKIM1; k=ed25519; p=" + b64encode(public)

    assert oracle.verify(content, dnsfunc=record)
    assert bool(writer.processes) is (len(text) > LIGHT_BYTES)


async def test_at_most_two_processes_write_at_once(writer: MailWriter) -> None:
    heavy = [mail(text="Hello", html=HEAVY) for _ in range(8)]
    found = await asyncio.gather(*(writer.write(each) for each in heavy))
    assert found == [written_here(each) for each in heavy]
    assert 1 <= len(writer.processes) <= 2


async def test_one_owner_does_not_keep_both_processes_from_others(
    writer: MailWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, begun = asyncio.Event(), asyncio.Event()
    ask = WorkerProcesses.ask

    async def hold(self: WorkerProcesses, *parts: bytes, within_s: float, most_bytes: int) -> bytes:
        begun.set()
        if any(b"held" in part for part in parts):
            await held.wait()
        return await ask(self, *parts, within_s=within_s, most_bytes=most_bytes)

    monkeypatch.setattr(WorkerProcesses, "ask", hold)
    greedy = [
        asyncio.create_task(writer.text_of(mail(owner_id="greedy", html=HEAVY + "held"))) for _ in range(4)
    ]
    await begun.wait()
    assert await writer.text_of(mail(owner_id="neighbour", html=HEAVY)) == plain_text.from_html(HEAVY)
    assert not any(task.done() for task in greedy)
    held.set()
    assert len(set(await asyncio.gather(*greedy))) == 1


async def test_owners_that_wait_for_their_threads_keep_no_process_from_others(writer: MailWriter) -> None:
    async with busy_threads("a", "b"):
        waiting = [
            asyncio.create_task(writer.text_of(mail(owner_id=owner, html="<b>x</b>"))) for owner in "ab"
        ]
        await asyncio.sleep(0)
        assert await writer.text_of(mail(owner_id="c", html="<b>y</b>")) == "y\n"
        assert not any(task.done() for task in waiting)
    assert await asyncio.gather(*waiting) == ["x\n", "x\n"]


async def test_a_mail_whose_process_is_killed_is_written_by_another_one(writer: MailWriter) -> None:
    heavy = mail(text="Hello", html=HEAVY)
    await writer.write(heavy)
    for process in writer.processes:
        os.kill(process.pid, signal.SIGKILL)
    assert await writer.write(heavy) == written_here(heavy)


async def test_a_mail_whose_process_does_not_answer_is_put_off_and_the_process_ended(
    writer: MailWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    heavy = mail(text="Hello", html=HEAVY)
    await writer.write(heavy)
    for process in writer.processes:
        process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr("emailer.writing.writer.ANSWER_WITHIN_S", 0.2)
    with pytest.raises(Overloaded, match="did not answer"):
        await writer.write(heavy)
    assert writer.processes == ()


async def test_a_mail_whose_processes_never_answer_is_put_off_longer_and_longer(
    writer: MailWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emailer.writing.writer.ANSWER_WITHIN_S", 0.2)
    heavy, waits = mail(text="Hello", html=HEAVY), []
    for _ in range(3):
        writing = asyncio.create_task(writer.write(heavy))
        await until(lambda: bool(writer.processes))
        for process in writer.processes:
            process.send_signal(signal.SIGSTOP)
        with pytest.raises(Overloaded, match="did not answer") as put_off:
            await writing
        waits.append(put_off.value.retry_after_s)
    assert waits == [2, 4, 8]
    monkeypatch.undo()
    assert await writer.write(heavy) == written_here(heavy)


async def test_a_mail_whose_owner_gets_no_thread_in_time_is_put_off(
    writer: MailWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emailer.writing.writer.TURN_WITHIN_S", 0.05)
    async with busy_threads("o"), asyncio.timeout(20):
        with pytest.raises(Overloaded, match="other mails are being written"):
            await writer.write(mail(text="Hello", html=HEAVY))


async def test_a_mail_that_makes_its_process_fail_is_not_put_off_as_if_it_were_interrupted(
    writer: MailWriter,
) -> None:
    # No such mail is ever stored: it stands for anything that a process fails at.
    with pytest.raises(UnwritableMail, match="ended with 1"):
        await writer.write(mail(text="Hello", html=HEAVY + "\ud800"))
    heavy = mail(text="Hello", html=HEAVY)
    assert await writer.write(heavy) == written_here(heavy)


async def test_the_largest_mail_is_written_with_the_memory_of_a_process(writer: MailWriter) -> None:
    large = mail(text="Hello", files=(File("a.bin", "a/b", bytes(20 << 20)),))
    assert len(await writer.write(large)) > 27 << 20


async def test_a_process_that_nobody_needs_ends(writer: MailWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emailer.workers.processes.IDLE_S", 0.05)
    await writer.write(mail(text="Hello", html=HEAVY))
    (process,) = writer.processes
    await until(lambda: not writer.processes and not psutil.pid_exists(process.pid))
    await writer.write(mail(text="Hello", html=HEAVY))
