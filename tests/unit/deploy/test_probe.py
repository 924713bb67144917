"""The image's health check."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from containers import probe


@contextmanager
def listener(reply: bytes) -> Iterator[int]:
    """Yield a port that gives one visitor `reply`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        yield server.getsockname()[1]
        thread.join(timeout=5)


def ask(monkeypatch: pytest.MonkeyPatch, port: int) -> int:
    monkeypatch.setenv("TICKWIRE_SERVICE", "stock-data")
    monkeypatch.setenv("STOCK_DATA_PORT", str(port))
    return probe.main()


def test_a_ready_service_is_healthy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with listener(b'HTTP/1.1 200 OK\r\n\r\n{"status":"ready"}') as port:
        assert ask(monkeypatch, port) == 0
    assert capsys.readouterr().out == '{"status":"ready"}'


def test_a_service_that_is_not_ready_is_not_healthy_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with listener(b'HTTP/1.1 503 Service Unavailable\r\n\r\n{"reasons":{"database":"away"}}') as port:
        assert ask(monkeypatch, port) == 1
    assert "away" in capsys.readouterr().out


def test_a_closed_port_is_not_healthy(monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int) -> None:
    assert ask(monkeypatch, unused_tcp_port) == 1


@pytest.mark.parametrize(
    ("service", "port"), [("gateway", 8090), ("stock-data", 8081), ("email", 8082), ("batch-processor", 8083)]
)
def test_each_service_has_its_ops_port(service: str, port: int) -> None:
    assert probe.ops_port({"TICKWIRE_SERVICE": service}) == port


def test_the_gateways_public_port_is_not_its_ops_port() -> None:
    environment = {"TICKWIRE_SERVICE": "gateway", "GATEWAY_PORT": "80", "GATEWAY_OPS_PORT": "99"}
    assert probe.ops_port(environment) == 99
