"""The guided tour: its sparkline, and the messages of steps that fail."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from dataclasses import replace
from datetime import UTC, datetime
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from rich.console import Console
from standardwebhooks import Webhook

from native import demo
from native.demo import webhooks
from native.demo.mails import compare_attachment
from native.demo.market import sparkline
from native.demo.tour import Tour
from native.demo.webhooks import HookRequest
from native.errors import DemoError
from native.mailbox import api
from native.mailbox.messages import Received, Store
from native.mailbox.receiver import Receiver
from native.ports import free_port
from upkeep.__main__ import main


def test_a_sparkline_rises_with_its_values_and_keeps_its_width() -> None:
    assert sparkline([1, 2, 3, 4], width=10) == "▁▃▅█"
    assert len(sparkline([float(number) for number in range(1000)], width=60)) == 60
    assert sparkline([5, 5], width=10) == "▁▁"


async def test_a_stack_that_does_not_run_fails_every_step_in_plain_words() -> None:
    output = io.StringIO()
    failed = await demo.walk(
        url="http://127.0.0.1:1",
        mailbox_url="http://127.0.0.1:1",
        key="k",
        console=Console(file=output),
        receiver_port=free_port(),
    )
    assert failed == len(demo.STEPS)
    assert output.getvalue().count("did not work:") == failed


def test_without_a_stack_the_tour_says_how_to_name_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run-dir", str(tmp_path), "--way", "native", "demo"]) == 1
    assert "make demo ARGS='--url" in capsys.readouterr().err


class RefusingGateway(BaseHTTPRequestHandler):
    """Refuses all reads, and remembers with which keys it was asked."""

    keys: set[str | None]

    def do_GET(self) -> None:
        self.keys.add(self.headers.get("Authorization"))
        self.send_error(503)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def test_the_key_is_read_from_the_file_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RefusingGateway.keys = set()
    key_file = tmp_path / "key"
    with ThreadingHTTPServer(("127.0.0.1", 0), RefusingGateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        words = ["--run-dir", str(tmp_path), "--way", "native"]
        words += ["demo", "--url", url, "--mailbox", "http://127.0.0.1:1"]
        assert main([*words, "--key-file", str(key_file)]) == 1
        assert f"There is no API key in {key_file}" in capsys.readouterr().err
        assert RefusingGateway.keys == set()
        key_file.write_text("tw_live_1\n")
        assert main([*words, "--key-file", str(key_file)]) == 1
        server.shutdown()
    assert "Bearer tw_live_1" in RefusingGateway.keys


async def test_a_problem_of_the_api_is_shown_with_its_detail() -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(503, json={"detail": "stock-data does not answer"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://api") as client:
        tour = Tour(api=client, mailbox=client, key="k", console=Console(file=io.StringIO()))
        with pytest.raises(DemoError, match="GET /v1/stocks: HTTP 503 stock-data does not answer"):
            await tour.get("/v1/stocks")


async def _step(*, port: int | None, status: int) -> str:
    """Return what the step of webhooks says where the gateway answers with `status`."""
    output = io.StringIO()
    transport = httpx.MockTransport(lambda _: httpx.Response(status, json={"detail": "not public"}))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        tour = Tour(
            api=client, mailbox=client, key="k", console=Console(file=output, width=200), receiver_port=port
        )
        await webhooks.webhook(tour)
    return output.getvalue()


async def test_the_step_of_webhooks_says_why_it_is_left_out() -> None:
    assert "left out: only `make run`" in await _step(port=None, status=500)
    port = free_port()
    shown = await _step(port=port, status=422)
    assert f"set GATEWAY_WEBHOOK_INTERNAL_TARGETS=127.0.0.1:{port}" in shown
    with pytest.raises(DemoError, match="HTTP 503 not public"):
        await _step(port=port, status=503)


def test_a_request_is_genuine_if_one_of_its_signatures_is_that_of_the_secret() -> None:
    secret, at, body = f"whsec_{base64.b64encode(b'k' * 32).decode()}", datetime.now(UTC), b'{"type":"x"}'
    signed = Webhook(secret).sign("msg_1", at, body.decode())
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(int(at.timestamp()))}
    of_both = HookRequest({**headers, "webhook-signature": f"v1,of-another {signed}"}, body)
    assert webhooks.is_genuine(of_both, secret)
    assert not webhooks.is_genuine(replace(of_both, body=b'{"type":"y"}'), secret)
    assert not webhooks.is_genuine(of_both, f"whsec_{base64.b64encode(b'j' * 32).decode()}")


async def test_an_attachment_that_arrived_is_compared_with_what_was_sent() -> None:
    content, mail, store = bytes(range(256)), EmailMessage(), Store()
    mail.set_content("Attached.")
    mail.add_attachment(content, maintype="application", subtype="octet-stream", filename="note.bin")
    store.add(Received(mail.as_bytes(), "a@example.org", ("b@example.org",)))
    app = api.create_app(store, Receiver(store), smtp_host="127.0.0.1", smtp_port=0)
    output = io.StringIO()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://box") as mailbox:
        tour = Tour(api=mailbox, mailbox=mailbox, key="k", console=Console(file=output))
        [message] = (await mailbox.get("/api/v1/messages")).json()["messages"]
        await compare_attachment(tour, message, hashlib.sha256(content).hexdigest())
        assert "note.bin has arrived byte for byte: 256 bytes" in output.getvalue()
        with pytest.raises(DemoError, match=r"note\.bin has arrived with other bytes"):
            await compare_attachment(tour, message, hashlib.sha256(b"other").hexdigest())
