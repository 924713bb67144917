"""The configuration of Prometheus in the native run."""

from __future__ import annotations

from pathlib import Path

from native.directories import RunDirectory
from native.ports import Ports
from native.prometheus import Prometheus


def test_every_service_and_the_broker_is_a_target_with_its_service_label(tmp_path: Path) -> None:
    ports = Ports()
    configuration = Prometheus(RunDirectory.at(tmp_path), ports).configuration()
    found = {
        (job["job_name"], static["labels"]["service"], static["targets"][0])
        for job in configuration["scrape_configs"]
        for static in job["static_configs"]
    }
    assert {
        ("services", "gateway", f"127.0.0.1:{ports.gateway_ops}"),
        ("services", "stock-data", f"127.0.0.1:{ports.stock_data}"),
        ("services", "email", f"127.0.0.1:{ports.email}"),
        ("services", "batch-processor", f"127.0.0.1:{ports.batch_processor}"),
        ("rabbitmq", "rabbitmq", f"127.0.0.1:{ports.rabbitmq_metrics}"),
    } <= found


def test_the_store_is_bounded_in_time_and_bytes(tmp_path: Path) -> None:
    command = Prometheus(RunDirectory.at(tmp_path), Ports()).stages[0][0].command
    assert "--storage.tsdb.retention.time=2d" in command
    assert "--storage.tsdb.retention.size=512MB" in command
