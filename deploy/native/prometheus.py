"""Prometheus with a bounded store, scraping the services and RabbitMQ."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from native import probes, supervisor
from native.directories import RunDirectory
from native.errors import MissingProgramError
from native.ports import HOST, Ports
from native.process import Program

RULES = Path(__file__).resolve().parents[1] / "prometheus" / "rules"

# Each scrape takes the whole stack 0.15 s of processor time. An alert compares the age of quotes with 30 s,
# and the shortest range of a rate has four scrapes in it.
SCRAPE_EVERY_S = 30

_DETAILED = ("queue_coarse_metrics", "queue_metrics")
# With the rules of the objectives, which have an interval of their own, an evaluation costs half a scrape.
EVALUATE_EVERY_S = SCRAPE_EVERY_S

# The metrics of servers that panels, rules and the status page read, and what belongs to them. A third of all
# series is left out, each of which takes memory, and time at each scrape. Whether a target is `up` is kept.
_READ = {
    "rabbitmq": "rabbitmq_(alarms_.+|build_info|channels|connections|disk_space_.+|global_.+|identity_info"
    "|process_resident_.+|queues|resident_.+)",
    "rabbitmq-detailed": "rabbitmq_detailed_queue_(consumers|messages_(ready|ready_bytes|unacked))",
    "postgres": "pg_(database_size_bytes|settings_max_connections|static|up"
    "|stat_database_(blks_.+|deadlocks|numbackends|xact_.+))|process_start_time_seconds",
    "prometheus": "prometheus_build_info|process_start_time_seconds",
}


@dataclass(frozen=True)
class PrometheusServer:
    """One Prometheus that keeps two days or 512 MB, whichever is less; `rules` is a folder of rule files."""

    run: RunDirectory
    ports: Ports = field(default_factory=Ports.free)
    scrape_interval_s: int = SCRAPE_EVERY_S
    evaluation_interval_s: int = EVALUATE_EVERY_S
    rules: Path = RULES

    @property
    def url(self) -> str:
        """The web page and the HTTP API."""
        return f"http://{HOST}:{self.ports.prometheus}"

    @property
    def stages(self) -> list[list[Program]]:
        """The programs to run."""
        return [[self._server()]]

    def configuration(self) -> dict[str, Any]:
        """Return the configuration; each target carries its service as a label."""
        interval = f"{self.scrape_interval_s}s"
        services = {
            "gateway": self.ports.gateway_ops,
            "stock-data": self.ports.stock_data,
            "email": self.ports.email,
            "batch-processor": self.ports.batch_processor,
        }
        return {
            "global": {
                "scrape_interval": interval,
                "evaluation_interval": f"{self.evaluation_interval_s}s",
                # Alerts link to their runbooks, which the gateway serves.
                "external_labels": {"gateway_url": f"http://{HOST}:{self.ports.gateway}"},
            },
            # The default has room for ten times as many from the start.
            "storage": {"exemplars": {"max_exemplars": 10_000}},
            "rule_files": [str(self.rules / "*.yml")],
            "scrape_configs": [
                _job("services", services),
                _job("rabbitmq", {"rabbitmq": self.ports.rabbitmq_metrics}),
                _job("rabbitmq-detailed", {"rabbitmq": self.ports.rabbitmq_metrics})
                | {"metrics_path": "/metrics/detailed", "params": {"family": list(_DETAILED)}},
                # With what PostgreSQL does for it, this takes as long as two services.
                _job("postgres", {"postgres": self.ports.postgres_exporter})
                | {"scrape_interval": f"{2 * self.scrape_interval_s}s"},
                # Its own metrics are long, and only `up` is read.
                _job("prometheus", {"prometheus": self.ports.prometheus})
                | {"scrape_interval": f"{4 * self.scrape_interval_s}s"},
            ],
        }

    def _server(self) -> Program:
        binary = shutil.which("prometheus")
        if binary is None:
            raise MissingProgramError("prometheus is not installed: run `make setup`")
        return Program(
            name="prometheus",
            command=(
                binary,
                f"--config.file={self._home / 'prometheus.json'}",
                f"--storage.tsdb.path={self._home / 'data'}",
                "--storage.tsdb.retention.time=2d",
                "--storage.tsdb.retention.size=512MB",
                "--enable-feature=exemplar-storage",
                f"--web.listen-address={HOST}:{self.ports.prometheus}",
            ),
            # Halves the heap for a little more garbage collection; there are few series.
            environment=self.run.environment() | {"GOMAXPROCS": "2", "GOGC": "30"},
            directory=self.run.root,
            log=self.run.log("prometheus"),
            probe=probes.http(self.ports.prometheus, "/-/ready"),
            prepare=self._prepare,
        )

    @property
    def _home(self) -> Path:
        return self.run.data / "prometheus"

    async def _prepare(self) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        # JSON is valid YAML, and needs no quoting rules.
        (self._home / "prometheus.json").write_text(json.dumps(self.configuration(), indent=2))


def _job(name: str, targets: Mapping[str, int]) -> dict[str, Any]:
    static = [
        {"targets": [f"{HOST}:{port}"], "labels": {"service": service}} for service, port in targets.items()
    ]
    job: dict[str, Any] = {"job_name": name, "static_configs": static}
    if name in _READ:
        kept = {"action": "keep", "source_labels": ["__name__"], "regex": _READ[name]}
        job["metric_relabel_configs"] = [kept]
    return job


@asynccontextmanager
async def start(directory: Path, ports: Ports | None = None) -> AsyncIterator[PrometheusServer]:
    """Run a private Prometheus with its data in `directory` for the length of the block."""
    server = PrometheusServer(RunDirectory.at(directory), ports or Ports.free(), 1, 1)
    async with supervisor.running(server.run.root, server.stages):
        yield server
