"""The configuration of Prometheus in the native run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import yaml

from gateway.administration.signals import CHARTS, Period, WindowName
from native.directories import RunDirectory
from native.ports import Ports
from native.prometheus import EVALUATE_EVERY_S, SCRAPE_EVERY_S, PrometheusServer
from native.rabbitmq import RabbitMQ
from support import monitored

REPOSITORY = Path(__file__).parents[3]


def test_every_service_and_the_broker_is_a_target_with_its_service_label(tmp_path: Path) -> None:
    ports = Ports()
    configuration = PrometheusServer(RunDirectory.at(tmp_path), ports).configuration()
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
    server = PrometheusServer(RunDirectory.at(tmp_path), Ports())
    assert server.configuration()["storage"] == {"exemplars": {"max_exemplars": 10_000}}
    command = server.stages[0][0].command
    assert "--storage.tsdb.retention.time=2d" in command
    assert "--storage.tsdb.retention.size=512MB" in command


def test_targets_are_scraped_as_often_in_every_way_of_running_and_the_broker_counts_no_oftener(
    tmp_path: Path,
) -> None:
    wanted = f"{SCRAPE_EVERY_S}s"
    here = PrometheusServer(RunDirectory.at(tmp_path), Ports()).configuration()["global"]
    containers = yaml.safe_load((REPOSITORY / "deploy/containers/prometheus/prometheus.yml").read_text())
    for one in (here, containers["global"]):
        assert (one["scrape_interval"], one["evaluation_interval"]) == (wanted, f"{EVALUATE_EVERY_S}s")
    sources = REPOSITORY / "deploy/containers/grafana/provisioning/datasources/datasources.yaml"
    assert f"timeInterval: {wanted}" in sources.read_text()
    monitors = (REPOSITORY / "k8s/components/monitoring/pod-monitors.yaml").read_text()
    assert set(re.findall(r"interval: (\S+)", monitors)) == {wanted}
    broker = (REPOSITORY / "deploy/containers/rabbitmq/rabbitmq.conf").read_text()
    statistics = f"collect_statistics_interval = {SCRAPE_EVERY_S}000\n"
    assert statistics in broker
    assert statistics in RabbitMQ(RunDirectory.at(tmp_path), Ports()).configuration()


def test_every_rate_of_a_rule_and_of_the_status_page_has_four_scrapes_in_its_range() -> None:
    expressions = [rule.expr for rule in monitored.rules()]
    for window in get_args(WindowName):
        expressions += [Period(window).expression(line.query) for chart in CHARTS for line in chart.lines]
    ranges = {
        int(number) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[unit]
        for expression in expressions
        for number, unit in re.findall(r"(?:rate|increase)\([^()\[\]]+\[(\d+)([smhd])\]\)", expression)
    }
    assert len(ranges) > 3
    assert min(ranges) >= 4 * SCRAPE_EVERY_S


def test_of_the_metrics_of_servers_those_are_kept_that_a_panel_or_a_rule_reads(tmp_path: Path) -> None:
    configuration = PrometheusServer(RunDirectory.at(tmp_path), Ports()).configuration()
    kept = [
        re.compile(relabelling["regex"])
        for job in configuration["scrape_configs"]
        for relabelling in job.get("metric_relabel_configs", ())
    ]
    queries = (*monitored.panel_queries().values(), *(rule.expr for rule in monitored.rules()))
    read = {name for query in queries for name in monitored.names(query)}
    of_servers = {name for name in read if name.startswith(("pg_", "rabbitmq_"))}
    assert len(of_servers) > 20
    assert {name for name in of_servers if not any(one.fullmatch(name) for one in kept)} == set()
    assert not any(one.fullmatch("pg_settings_work_mem_bytes") for one in kept)
