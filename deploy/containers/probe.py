"""The image's HEALTHCHECK, without a shell or an HTTP client: exit code 0 when the service is ready.

It uses bare sockets: with an HTTP client its start-up would take five times as long, every few seconds, in
every container.
"""

from __future__ import annotations

import os
import socket
import sys

_TIMEOUT_S = 3.0
_DEFAULT_PORTS = {"gateway": "8090", "stock-data": "8081", "email": "8082", "batch-processor": "8083"}


def ops_port(environ: dict[str, str]) -> int:
    """Return the port of `/readyz`: the gateway's separate ops port, the only port of other services."""
    service = environ["TICKWIRE_SERVICE"]
    prefix = service.replace("-", "_").upper()
    name = f"{prefix}_OPS_PORT" if service == "gateway" else f"{prefix}_PORT"
    return int(environ.get(name, _DEFAULT_PORTS[service]))


def answer(port: int) -> bytes:
    """Return the answer to `GET /readyz` on this host, the status line first."""
    with socket.create_connection(("127.0.0.1", port), _TIMEOUT_S) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        parts = iter(lambda: connection.recv(65536), b"")
        return b"".join(parts)


def main() -> int:
    """Print the service's answer, which `docker inspect` shows; return 0 when it is ready."""
    try:
        found = answer(ops_port(dict(os.environ)))
    except OSError as error:
        sys.stdout.write(f"{error}\n")
        return 1
    sys.stdout.write(found.rpartition(b"\r\n\r\n")[2].decode(errors="replace"))
    return 0 if found.startswith(b"HTTP/1.1 200 ") else 1


if __name__ == "__main__":
    raise SystemExit(main())
