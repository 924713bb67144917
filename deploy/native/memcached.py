"""memcached on a private port."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from native import probes, supervisor
from native.directories import RunDirectory
from native.errors import MissingProgramError
from native.ports import HOST, Ports
from native.process import Program

_MEMORY_MIB = 64


@dataclass(frozen=True)
class Memcached:
    """One memcached of 64 MiB; it stores nothing on disk."""

    run: RunDirectory
    ports: Ports = field(default_factory=Ports.free)

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"{HOST}:{self.ports.memcached}"

    @property
    def stages(self) -> list[list[Program]]:
        """The programs to run."""
        return [[self._server()]]

    def _server(self) -> Program:
        binary = shutil.which("memcached")
        if binary is None:
            raise MissingProgramError("memcached is not installed: run `make setup`")
        port = str(self.ports.memcached)
        return Program(
            name="memcached",
            command=(
                binary,
                "-l",
                HOST,
                "-p",
                port,
                "-U",
                "0",
                "-m",
                str(_MEMORY_MIB),
                "-c",
                "1024",
                "-t",
                "2",
            ),
            environment=self.run.environment(),
            directory=self.run.root,
            log=self.run.log("memcached"),
            probe=probes.tcp(
                self.ports.memcached,
                send=b"version\r\n",
                expect=b"VERSION",
                what=f"version on {self.address}",
            ),
            user="nobody",
        )


@asynccontextmanager
async def start(directory: Path, ports: Ports | None = None) -> AsyncIterator[Memcached]:
    """Run a private memcached with its log in `directory` for the length of the block."""
    server = Memcached(RunDirectory.at(directory), ports or Ports.free())
    async with supervisor.running(server.run.root, server.stages):
        yield server
