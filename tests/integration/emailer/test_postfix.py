"""Real Postfix takes every mail that is written, and relays it unchanged, octet by octet."""

from __future__ import annotations

import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emailer.sending import smtp
from emailer.sending.hosts import TlsPolicy
from emailer.sending.smtp import Envelope, SmtpRelay
from support import postfix
from support.doubles import smtp as double
from support.doubles.smtp import SmtpServer
from support.waiting import until
from support.world_mails import Written, mails

pytestmark = pytest.mark.root

GUIDE = Path(__file__).parents[3] / "docs/guides/email.md"


@pytest.fixture(scope="module")
async def next_hop() -> AsyncIterator[SmtpServer]:
    async with double.running() as running:
        yield running


@pytest.fixture(scope="module")
async def relay(next_hop: SmtpServer, certificate: Path) -> AsyncIterator[SmtpRelay]:
    async with postfix.running(next_hop=next_hop.port, certificate=certificate) as port:
        yield SmtpRelay("127.0.0.1", port, tls="off", timeout_s=10)


@settings(
    deadline=None,
    max_examples=3,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(st.lists(mails(), min_size=15, max_size=15))
async def test_postfix_takes_mails_in_every_script_and_changes_no_octet(
    relay: SmtpRelay, next_hop: SmtpServer, written: list[Written]
) -> None:
    next_hop.received.clear()
    session = await smtp.connect(relay)
    for one in written:
        recipient = one.letter.to[0].address
        needs_utf8 = one.letter.needs_utf8 or not recipient.isascii()
        envelope = Envelope(one.letter.sender.address, recipient, one.content, needs_utf8)
        answer = await session.deliver(envelope)
        assert answer.reply.code == 250, (answer.reply, one)
    session.close()
    await until(lambda: len(next_hop.received) == len(written), what=lambda: str(len(next_hop.received)))
    # Postfix puts its own line before what it got.
    arrived = sorted(mail.content.partition(b"\r\nFrom: ")[2] for mail in next_hop.received)
    assert arrived == sorted(one.content.partition(b"From: ")[2] for one in written)


@pytest.mark.parametrize("tls", ["off", "opportunistic"])
async def test_postfix_takes_a_mail_as_large_as_it_says(
    relay: SmtpRelay, next_hop: SmtpServer, tls: TlsPolicy
) -> None:
    next_hop.received.clear()
    content = b"From: a@example.com\r\n\r\n" + (b"x" * 76 + b"\r\n") * 350_000
    session = await smtp.connect(replace(relay, tls=tls))
    assert session.tls == (tls != "off")
    answer = await session.deliver(Envelope("a@example.com", "b@example.com", content))
    too_big = await session.deliver(Envelope("a@example.com", "b@example.com", content * 2))
    session.close()
    assert (answer.reply.code, too_big.reply.code) == (250, 552)
    await until(lambda: next_hop.received)
    assert next_hop.received[0].content.endswith(content[1000:])


@pytest.mark.parametrize(("block", "domain"), [(0, "bounces.example.com"), (1, "bounces.acme.example")])
def test_the_lines_of_the_guide_lead_bounces_to_the_program_that_submits_them(
    tmp_path: Path, block: int, domain: str
) -> None:
    texts = [text for _, text in re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE.read_text(), re.M | re.S)]
    master, _, main = [text for text in texts if "# main.cf\n" in text][block].partition("# main.cf\n")
    (tmp_path / "master.cf").write_text(master)
    (tmp_path / "main.cf").write_text(f"compatibility_level = 3.6\n{main}")

    def said(program: str, *words: str) -> str:
        command = (f"/usr/sbin/{program}", "-c", str(tmp_path), *words)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    domains, table = (said("postconf", "-h", "-x", name) for name in ("relay_domains", "transport_maps"))
    if block == 0:
        assert domains == domain
        assert said("postmap", "-q", domain, table) == "tickwire"
        assert said("postconf", "-M", "tickwire/unix").startswith("tickwire")
    else:
        assert said("postmap", "-q", domain, domains)
        assert said("postmap", "-q", f"b+x@{domain}", table) == "tickwire:"
