"""The card that every way of running prints, against a gateway of a few lines."""

from __future__ import annotations

import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from card.__main__ import main

KEY = "tw_live_0123456789abcdef_" + "x" * 49
PATH = "/console/login#tw_login_abc.def"


class LoginGateway(http.server.BaseHTTPRequestHandler):
    """Takes one key, gives it login addresses, and has some pages."""

    def do_GET(self) -> None:
        if self.path == "/v1/me":
            self._answer(200 if self.headers["authorization"] == f"Bearer {KEY}" else 401)
        else:
            self._answer(200 if self.path in ("/docs", "/console/status", "/") else 503)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert (self.path, asked) == ("/v1/console/logins", {"ttl_s": 600})
        if self.headers["authorization"] != f"Bearer {KEY}":
            self._answer(403, {"detail": "This needs the scope admin."})
        else:
            self._answer(200, {"path": PATH, "expires_at": "2026-11-27T08:00:00Z"})

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, document: dict[str, str] | None = None) -> None:
        body = json.dumps(document or {}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), LoginGateway) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def secure_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a server whose certificate nobody has signed but itself."""
    folder = tmp_path_factory.mktemp("secure")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    words = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run((*words, *files, "-subj", "/CN=localhost"), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), LoginGateway) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def card(capsys: pytest.CaptureFixture[str], file: Path, key: str, *arguments: str) -> str:
    file.write_text(key)
    assert main(["--key-file", str(file), "--recover", "make keys-reset", *arguments]) == 0
    return capsys.readouterr().out


def test_the_card_shows_which_addresses_answered(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = ("--page", f"mailbox={url}/", "--page", f"Grafana={url}/broken    (admin)", "--page", "other=")
    hints = ("--hint", "stop=make down", "--hint", "the tour=")
    said = card(capsys, tmp_path / "a key", KEY, "--gateway", url, *pages, *hints)
    assert said.startswith("\n  Tickwire is ready.\n\n")
    assert f"    console       {url}{PATH}\n" in said
    assert "(opens once, within 10 minutes; for another one: make login)" in said
    assert f"    mailbox       {url}/\n" in said
    assert f"    Grafana       {url}/broken    (admin)    (does not answer)\n" in said
    assert f"    API key       {KEY}\n                  (also in '{tmp_path}/a key')\n" in said
    assert f"$(cat '{tmp_path}/a key')" in said
    assert "    stop          make down\n" in said
    assert "other" not in said.replace("another", "")
    assert "the tour" not in said


def test_the_proxy_is_named_after_trying_it_whoever_has_signed_its_certificate(
    url: str, secure_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for proxy, note in ((secure_url, ""), (secure_url.replace("https", "http"), "    (does not answer)")):
        said = card(capsys, tmp_path / "key", KEY, "--gateway", url, "--proxy", proxy)
        assert f"    API           {url}, and {proxy}{note}\n" in said


def test_a_refused_key_is_reported_with_the_way_out(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = card(capsys, tmp_path / "key", KEY[:-1], "--gateway", url)
    assert "(the gateway refuses it with HTTP 401: make keys-reset)" in said
    assert f"console       {url}/console/status    (asks for an API key)" in said
    assert "tw_login_" not in said


@pytest.mark.parametrize(
    ("senders", "said"),
    [
        ("", "from anybody    (ALLOWED_SENDER_DOMAINS=none: from verified domains only)"),
        ("none", "from verified domains\n"),
        ("acme.example", "from verified domains, and from acme.example\n"),
    ],
)
def test_the_card_says_who_may_send_as_whom(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], senders: str, said: str
) -> None:
    shown = card(capsys, tmp_path / "key", KEY, "--gateway", url, f"--senders={senders}")
    assert f"    senders       mail may come {said}" in shown
