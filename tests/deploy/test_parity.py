"""Compose and Kubernetes run the same images, settings, ports, probes and secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from batch_processor.settings import BatchProcessorSettings
from chassis.settings import Settings, variable
from containers import probe
from emailer.settings import EmailSettings
from gateway.settings import GatewaySettings
from native.directories import RunDirectory
from native.ports import Ports
from native.prometheus import PrometheusServer
from native.services import SERVICES as NATIVE
from native.services import ServiceProgram
from native.stack import Blueprint
from stock_data.settings import StockDataSettings
from support.deployment import manifests
from support.deployment.composed import REPOSITORY, SERVICES
from support.deployment.manifests import Manifest, kind

SETTINGS: dict[str, type[Settings]] = {
    "gateway": GatewaySettings,
    "stock-data": StockDataSettings,
    "email": EmailSettings,
    "batch-processor": BatchProcessorSettings,
}
# The image of each server in the local overlay is the one of compose.
SERVERS = ("rabbitmq", "postgres", "memcached", "mailpit")
# Where a container listens is a matter of its own; what is published, compose and Services say.
INSIDE = {f"{prefix}_HOST" for prefix in ("GATEWAY", "STOCK_DATA", "EMAIL", "BATCH_PROCESSOR")}
# Each way makes these itself, and knows the ports inside.
FIXED = {"RABBITMQ_URL", "POSTGRES_DSN", "MEMCACHED_ADDRESS"} | {
    "GATEWAY_PORT",
    "GATEWAY_OPS_PORT",
    "STOCK_DATA_PORT",
    "EMAIL_PORT",
    "BATCH_PROCESSOR_PORT",
}
EXPORTERS = ("postgres-exporter", "memcached-exporter")


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    text = (REPOSITORY / "compose.yaml").read_text()
    # ${NAME:+instead} and ${NAME:-default} as they are when nobody sets NAME.
    unset = re.sub(r"\$\{\w+:\+[^}]*\}", "", text)
    found: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", unset))
    return found


@pytest.fixture(scope="session")
def k8s(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return manifests.copy(tmp_path_factory.mktemp("parity"))


@pytest.fixture(scope="session")
def local(k8s: Path) -> list[Manifest]:
    return manifests.build(k8s / "overlays/local")


@pytest.fixture(scope="session")
def monitored(k8s: Path) -> list[Manifest]:
    return manifests.combine(k8s, ("monitoring",))


def container(local: list[Manifest], name: str) -> dict[str, Any]:
    owners = kind(local, "Deployment") | kind(local, "StatefulSet")
    found: dict[str, Any] = owners[name]["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize("name", [*SERVICES, *SERVERS])
def test_images_are_the_same(compose: dict[str, Any], local: list[Manifest], name: str) -> None:
    assert container(local, name)["image"] == compose["services"][name]["image"]


@pytest.mark.parametrize("service", NATIVE, ids=lambda one: one.name)
def test_every_way_of_running_starts_the_same_program(
    compose: dict[str, Any], local: list[Manifest], service: ServiceProgram
) -> None:
    # What a program always does, as running operations in processes of their own, it does in every way.
    assert not {"command", "entrypoint"} & compose["services"][service.name].keys()
    assert not {"command", "args"} & container(local, service.name).keys()
    packages = (REPOSITORY / "services" / service.name / "src").glob("*/__main__.py")
    assert [main.parent.name for main in packages] == [service.package]
    dockerfile = (REPOSITORY / "deploy/Dockerfile").read_text()
    assert 'ENTRYPOINT ["/opt/tickwire/bin/python", "/opt/tickwire/serve.py"]' in dockerfile
    assert "from %s.__main__ import main" in dockerfile


@pytest.mark.parametrize("service", SERVICES)
def test_a_check_reads_the_settings_as_its_service_does(compose: dict[str, Any], service: str) -> None:
    check, checked = compose["services"][f"check-{service}"], compose["services"][service]
    for name in ("image", "environment", "volumes"):
        assert check[name] == checked[name]
    assert check["command"] == [SETTINGS[service].__module__.partition(".")[0]]
    assert (check["restart"], check["network_mode"]) == ("no", "none")
    # Compose itself hands on only names that it knows.
    assert check["env_file"] == [{"path": ".env", "required": False}]


def test_nothing_depends_on_the_checks_which_compose_makes_anew_for_each_release(
    compose: dict[str, Any],
) -> None:
    checks = {f"check-{service}" for service in SERVICES}
    assert {name for name, one in compose["services"].items() if one.get("profiles") == ["check"]} == checks
    for service in compose["services"].values():
        assert checks.isdisjoint(service.get("depends_on", {}))


@pytest.mark.parametrize("name", EXPORTERS)
def test_exporters_are_the_same(compose: dict[str, Any], monitored: list[Manifest], name: str) -> None:
    ours, theirs = container(monitored, name), compose["services"][name]
    assert ours["image"] == theirs["image"]
    assert ours.get("args") == theirs.get("command")
    assert {entry["name"]: entry["value"] for entry in ours.get("env", [])} == theirs.get("environment", {})


@pytest.mark.parametrize("service", SERVICES)
def test_settings_are_the_same(compose: dict[str, Any], local: list[Manifest], service: str) -> None:
    wanted = compose["services"][service]["environment"]
    given = {name: str(value) for name, value in wanted.items() if value is not None}
    # In a cluster, the proxies are those of a component.
    given.pop("GATEWAY_TRUSTED_PROXIES", None)
    # The pause of a pod before its stop (`preStop`) gives proxies that time.
    given.pop("SHUTDOWN_DELAY_S", None)
    found = manifests.environment(local, service)
    known = settings(service)
    assert {name: found[name] for name in found if {name, name.removesuffix("_FILE")} & known} == given


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_reaches_containers(compose: dict[str, Any], service: str) -> None:
    known = settings(service)
    assert set(secrets_named(compose["services"][service]["environment"], known)) == known - INSIDE


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_reaches_pods(k8s: Path, service: str) -> None:
    own = {name: f"{name} as somebody wants it" for name in settings(service) - INSIDE - FIXED}
    folder = k8s / "tested" / f"settings-{service}"
    folder.mkdir(parents=True)
    literals = [f"{name}={value}" for name, value in own.items()]
    generator = {"name": "settings", "behavior": "merge", "literals": literals}
    wanted = {
        "namespace": "tickwire",
        "resources": ["../../overlays/local"],
        "configMapGenerator": [generator],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(wanted))
    found = manifests.environment(manifests.build(folder), service)
    reached = secrets_named(found, settings(service))
    files = {name for name, value in reached.items() if value.startswith("/run/secrets/")}
    assert {name: reached.get(name) for name in own.keys() - files} == {
        name: own[name] for name in own.keys() - files
    }


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_reaches_processes(tmp_path: Path, service: str) -> None:
    own = {name: f"{name} as somebody wants it" for name in settings(service) - FIXED}
    backing = Blueprint(RunDirectory.at(tmp_path), Ports(), variables=own).backing
    found = backing.environment(next(one for one in NATIVE if one.name == service), Ports())
    ports = {name for name in own if re.search(r"(?<!SMTP)_PORT$", name)}
    assert {name: found[name] for name in own.keys() - ports} == {
        name: own[name] for name in own.keys() - ports
    }


def secrets_named(given: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """Return the variables that are given, those by a file (X_FILE) under their names."""
    return {name if name in known else name.removesuffix("_FILE"): value for name, value in given.items()}


def settings(service: str) -> set[str]:
    """Return every variable that the service reads."""
    model = SETTINGS[service]
    return {variable(model, name, field) for name, field in model.model_fields.items()}


@pytest.mark.parametrize("service", SERVICES)
def test_secrets_are_the_same_files(
    compose: dict[str, Any], k8s: Path, local: list[Manifest], service: str
) -> None:
    (mount,) = compose["services"][service]["volumes"]
    assert mount.endswith(f"/{service}:/run/secrets:ro")
    targets = {file.name for file in (k8s / "overlays/local/secrets" / service).iterdir()}
    volumes = kind(local, "Deployment")[service]["spec"]["template"]["spec"]["volumes"]
    secret = next(volume["secret"]["secretName"] for volume in volumes if "secret" in volume)
    assert set(kind(local, "Secret")[secret]["data"]) == targets


@pytest.mark.parametrize("service", SERVICES)
def test_the_published_ports_are_those_that_the_service_listens_on(
    local: list[Manifest], service: str
) -> None:
    environment = manifests.environment(local, service)
    numbers = {int(value) for name, value in environment.items() if re.search(r"(?<!SMTP)_PORT$", name)}
    ports = {entry["name"]: entry["containerPort"] for entry in container(local, service)["ports"]}
    assert set(ports.values()) == numbers
    front = kind(local, "Service")[service]["spec"]["ports"]
    assert {entry["targetPort"]: entry["port"] for entry in front} == ports


def test_health_is_probed_on_the_same_port(local: list[Manifest]) -> None:
    for service in SERVICES:
        environment = {**manifests.environment(local, service), "TICKWIRE_SERVICE": service}
        ports = {entry["name"]: entry["containerPort"] for entry in container(local, service)["ports"]}
        assert probe.ops_port(environment) == ports["ops"]
        assert container(local, service)["readinessProbe"]["httpGet"]["port"] == "ops"


@pytest.mark.parametrize("name", SERVERS)
def test_servers_start_the_same_way(compose: dict[str, Any], local: list[Manifest], name: str) -> None:
    ours, theirs = container(local, name), compose["services"][name]
    assert {entry["name"]: entry["value"] for entry in ours.get("env", [])} == theirs.get("environment", {})
    assert ours.get("args") == theirs.get("command")


@pytest.mark.parametrize("name", [*SERVICES, *SERVERS])
def test_memory_limits_are_the_same_in_compose_and_in_kubernetes(
    compose: dict[str, Any], local: list[Manifest], name: str
) -> None:
    ours, theirs = container(local, name), compose["services"][name]
    assert ours["resources"]["limits"]["memory"].lower() == f"{theirs['mem_limit']}i"
    assert user(local, name) == user_of(theirs)


def user(local: list[Manifest], name: str) -> str:
    owners = kind(local, "Deployment") | kind(local, "StatefulSet")
    return str(owners[name]["spec"]["template"]["spec"]["securityContext"]["runAsUser"])


def user_of(service: dict[str, Any]) -> str:
    # Without a word of its own, a container runs as the user of its image (deploy/Dockerfile).
    return str(service.get("user", "65532:65532")).split(":", maxsplit=1)[0]


@pytest.mark.parametrize("name", ["rabbitmq", "postgres", "memcached", "mailpit"])
def test_servers_are_probed_on_the_same_port(
    compose: dict[str, Any], local: list[Manifest], name: str
) -> None:
    ours, theirs = container(local, name), compose["services"][name]["healthcheck"]["test"]
    probe_ = ours["readinessProbe"]
    if "exec" in probe_:
        assert probe_["exec"]["command"] == theirs[1:]
        return
    ports = {entry["name"]: entry["containerPort"] for entry in ours["ports"]}
    if "tcpSocket" in probe_:
        assert f"/127.0.0.1/{ports[probe_['tcpSocket']['port']]}" in theirs[-1]
        return
    assert theirs == ["CMD", "/mailpit", probe_["httpGet"]["path"].removeprefix("/")]


@pytest.mark.parametrize("name", [*SERVICES, *SERVERS])
def test_every_way_of_running_is_as_patient_with_a_slow_start(
    compose: dict[str, Any], local: list[Manifest], name: str
) -> None:
    startup = container(local, name)["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 180
    assert startup["timeoutSeconds"] == 4
    if name in SERVERS:
        assert compose["services"][name]["healthcheck"]["start_period"] == "180s"
    else:
        assert "--start-period=180s" in (REPOSITORY / "deploy/Dockerfile").read_text()


def test_prometheus_scrapes_the_same_jobs_as_the_native_run(tmp_path: Path) -> None:
    ours = yaml.safe_load((REPOSITORY / "deploy/containers/prometheus/prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in ours["scrape_configs"]}
    native = PrometheusServer(RunDirectory.at(tmp_path)).configuration()["scrape_configs"]
    for job in native:
        same = ("metrics_path", "params")
        assert {key: jobs[job["job_name"]].get(key) for key in same} == {key: job.get(key) for key in same}


def test_a_cluster_scrapes_the_same_jobs(monitored: list[Manifest]) -> None:
    ours = yaml.safe_load((REPOSITORY / "deploy/containers/prometheus/prometheus.yml").read_text())
    wanted = {job["job_name"]: scraped(job) for job in ours["scrape_configs"]}
    # The Prometheus operator watches its own.
    for own in ("prometheus", "alertmanager"):
        del wanted[own]
    monitors = kind(monitored, "PodMonitor").values()
    endpoints = [found for monitor in monitors for found in monitor["spec"]["podMetricsEndpoints"]]
    assert {labels(found)["job"]: scraped(found) for found in endpoints} == wanted
    assert all("service" in labels(found) for found in endpoints)


def scraped(endpoint: dict[str, Any]) -> tuple[str, Any]:
    path = endpoint.get("path") or endpoint.get("metrics_path") or "/metrics"
    return path, endpoint.get("params")


def labels(endpoint: dict[str, Any]) -> dict[str, str | None]:
    return {found["targetLabel"]: found.get("replacement") for found in endpoint["relabelings"]}


def test_monitors_find_pods_and_ports_that_exist(local: list[Manifest], monitored: list[Manifest]) -> None:
    found = local + monitored
    for name, monitor in kind(found, "PodMonitor").items():
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        chosen = [pod for _, pod in manifests.pods(found) if wanted <= pod["metadata"]["labels"].items()]
        assert chosen, name
        for pod in chosen:
            ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
            assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports, name


def test_drains_end_before_the_engine_kills(compose: dict[str, Any]) -> None:
    for service in SERVICES:
        given = compose["services"][service]["environment"]
        drain_s = int(given["SHUTDOWN_DELAY_S"] or 0) + int(given["SHUTDOWN_GRACE_S"])
        assert int(compose["services"][service]["stop_grace_period"].removesuffix("s")) >= drain_s + 12


def test_every_third_party_image_has_a_full_version(compose: dict[str, Any]) -> None:
    images = {service["image"] for service in compose["services"].values()}
    others = {image for image in images if "localhost/tickwire" not in image}
    assert len(others) == 12
    # PostgreSQL and the image of Python name theirs by two and three numbers.
    full = re.compile(r":v?\d+\.\d+\.\d+(-\w+)?$|^postgres:\d+\.\d+$")
    assert [image for image in sorted(others) if not full.search(image)] == []


def test_memory_limits_are_what_the_vendors_ask_for(compose: dict[str, Any]) -> None:
    services = compose["services"]
    limits = {name: services[name]["mem_limit"] for name in ("grafana", "rabbitmq", "postgres")}
    assert limits == {"grafana": "512m", "rabbitmq": "1g", "postgres": "768m"}
    # RabbitMQ blocks publishers at half of what it may have, PostgreSQL's buffers are a third of it.
    configuration = (REPOSITORY / "deploy/containers/rabbitmq/rabbitmq.conf").read_text()
    assert "vm_memory_high_watermark.absolute = 512MB" in configuration
    assert "-cshared_buffers=256MB" in services["postgres"]["command"]
