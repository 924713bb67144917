"""The exporter of PostgreSQL's metrics for Prometheus, the same as in containers and clusters."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field

from native import probes
from native.directories import RunDirectory
from native.errors import MissingProgramError
from native.ports import HOST, Ports
from native.postgres import METRICS
from native.process import Program


@dataclass(frozen=True)
class PostgresExporter:
    """One exporter, logged in as a role that may read statistics only."""

    run: RunDirectory
    ports: Ports = field(default_factory=Ports.free)

    @property
    def stages(self) -> list[list[Program]]:
        """The programs to run."""
        return [[self._server()]]

    def _server(self) -> Program:
        binary = shutil.which("prometheus-postgres-exporter")
        if binary is None:
            raise MissingProgramError("prometheus-postgres-exporter is not installed: run `make setup`")
        port = self.ports.postgres_exporter
        self.run.secret(f"postgres-{METRICS}")
        login = {
            "DATA_SOURCE_URI": f"{HOST}:{self.ports.postgres}/postgres?sslmode=disable",
            "DATA_SOURCE_USER": METRICS,
            "DATA_SOURCE_PASS_FILE": str(self.run.secrets / f"postgres-{METRICS}"),
        }
        return Program(
            name="postgres-exporter",
            command=(binary, f"--web.listen-address={HOST}:{port}"),
            environment=self.run.environment() | login | {"GOMAXPROCS": "1", "GOGC": "40"},
            directory=self.run.root,
            log=self.run.log("postgres-exporter"),
            probe=probes.tcp(port),
        )
