"""The mailbox as a program of the stack."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from native import probes, supervisor
from native.directories import RunDirectory
from native.ports import HOST, Ports
from native.process import Program

_PACKAGES = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class MailboxServer:
    """One mailbox; its mail survives a restart, in the stack's data folder."""

    run: RunDirectory
    ports: Ports = field(default_factory=Ports.free)

    @property
    def url(self) -> str:
        """The web page; the API is below `/api/v1`."""
        return f"http://{HOST}:{self.ports.mailbox_http}"

    @property
    def smtp(self) -> tuple[str, int]:
        """Host and port of the SMTP server."""
        return HOST, self.ports.mailbox_smtp

    @property
    def stages(self) -> list[list[Program]]:
        """The programs to run."""
        return [[self._server()]]

    def _server(self) -> Program:
        smtp, http = str(self.ports.mailbox_smtp), str(self.ports.mailbox_http)
        return Program(
            name="mailbox",
            command=(
                *(sys.executable, "-m", "native.mailbox", "--smtp-port", smtp, "--http-port", http),
                *("--directory", str(self.run.data / "mailbox")),
            ),
            environment=self.run.environment() | {"PYTHONPATH": str(_PACKAGES), "PYTHONUNBUFFERED": "1"},
            directory=self.run.root,
            log=self.run.log("mailbox"),
            probe=probes.http(self.ports.mailbox_http, "/readyz"),
            stop_timeout_s=5.0,
        )


@asynccontextmanager
async def start(directory: Path, ports: Ports | None = None) -> AsyncIterator[MailboxServer]:
    """Run a private mailbox with its log in `directory` for the length of the block."""
    server = MailboxServer(RunDirectory.at(directory), ports or Ports.free())
    async with supervisor.running(server.run.root, server.stages):
        yield server
