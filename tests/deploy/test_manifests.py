"""Kubernetes manifests: every combination builds, every field is known, and the guarantees hold in all."""

from __future__ import annotations

import ipaddress
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from chassis.http1.admission import Admission
from chassis.http1.limits import ConnectionLimits
from containers import prometheus_rules
from contracts.topology import TOPOLOGIES
from support.deployment import manifests
from support.deployment.composed import REPOSITORY, SERVICES
from support.deployment.manifests import COMPONENTS, SETS, Manifest, kind, pods

OVERLAYS = ("local", "external", "production")


@pytest.fixture(scope="session")
def k8s(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return manifests.copy(tmp_path_factory.mktemp("manifests"))


@pytest.fixture(scope="session")
def base(k8s: Path) -> list[Manifest]:
    return manifests.build(k8s / "base")


@pytest.fixture(scope="session")
def overlays(k8s: Path) -> dict[str, list[Manifest]]:
    return {name: manifests.build(k8s / "overlays" / name) for name in OVERLAYS}


def test_every_combination_of_components_builds_and_is_valid(k8s: Path) -> None:
    assert len(SETS) == 2 ** len(COMPONENTS) == 64
    with ThreadPoolExecutor(2) as pool:
        built = list(pool.map(lambda components: manifests.combine(k8s, components), SETS))
    for found in built:
        for manifest in found:
            manifests.check(manifest)
    assert len({len(found) for found in built}) > 10


# What somebody may well put on top of an overlay; the rest of the components is in it already.
@pytest.mark.parametrize(
    ("overlay", "components"),
    [
        ("local", ("monitoring",)),
        ("local", ("keda",)),
        ("local", ("gateway-api",)),
        ("local", ("gateway-api", "keda", "monitoring")),
        ("local", ("ingress",)),
        ("production", ("ingress",)),
        ("production", ("backup",)),
        ("production", ("backup", "recovery")),
        ("production", ("http-requests",)),
        ("external", ("gateway-api",)),
        ("external", ("ingress",)),
    ],
)
def test_an_overlay_can_include_more_components(k8s: Path, overlay: str, components: tuple[str, ...]) -> None:
    found = manifests.combine(k8s, components, on=f"overlays/{overlay}")
    for manifest in found:
        manifests.check(manifest)
    assert_nothing_is_missing(found)


def test_a_recovered_database_cluster_reads_the_archive_of_the_lost_one_and_writes_another(k8s: Path) -> None:
    found = manifests.combine(k8s, ("backup", "recovery"), on="overlays/production")
    spec = kind(found, "Cluster")["postgres"]["spec"]
    (lost,) = spec["externalClusters"]
    (archiver,) = spec["plugins"]
    store = kind(found, "ObjectStore")["backups"]["metadata"]["name"]
    assert lost["plugin"]["parameters"] == {"barmanObjectName": store, "serverName": "postgres"}
    assert spec["bootstrap"]["recovery"]["source"] == lost["name"]
    # An archive that is not empty would be refused.
    assert archiver["parameters"] == {"barmanObjectName": store, "serverName": "postgres-2"}
    assert archiver["isWALArchiver"]


def test_a_backup_by_hand_is_made_as_the_scheduled_ones_are(k8s: Path) -> None:
    by_hand = yaml.safe_load((k8s / "components/backup/now.yaml").read_text())
    manifests.check(by_hand)
    found = manifests.combine(k8s, ("backup",), on="overlays/production")
    scheduled = kind(found, "ScheduledBackup")["nightly"]["spec"]
    assert by_hand["spec"] == {name: scheduled[name] for name in by_hand["spec"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_of_an_overlay_is_valid(overlays: dict[str, list[Manifest]], overlay: str) -> None:
    for manifest in overlays[overlay]:
        manifests.check(manifest)
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == "tickwire"


def test_a_field_that_does_not_exist_is_refused(base: list[Manifest]) -> None:
    deployment = kind(base, "Deployment")["email"]
    broken = {**deployment, "spec": {**deployment["spec"], "replica": 3}}
    with pytest.raises(Exception, match="replica"):
        manifests.check(broken)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_keep_to_the_restricted_standard(overlays: dict[str, list[Manifest]], overlay: str) -> None:
    namespace = kind(overlays[overlay], "Namespace")["tickwire"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, pod in pods(overlays[overlay]):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert set(spec) & {"hostNetwork", "hostPID", "hostIPC"} == set(), name
        for container in spec["containers"]:
            own = container["securityContext"]
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["readOnlyRootFilesystem"] is True, name
        allowed = {"configMap", "secret", "emptyDir", "projected", "name"}
        assert all(set(volume) <= allowed for volume in spec.get("volumes", [])), name


def test_pods_that_an_operator_makes_keep_to_the_restricted_standard_too(
    overlays: dict[str, list[Manifest]],
) -> None:
    # CloudNativePG says all of it by itself, the RabbitMQ Cluster Operator does not in every version.
    cluster = kind(overlays["production"], "RabbitmqCluster")["rabbitmq"]
    spec = cluster["spec"]["override"]["statefulSet"]["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*spec["initContainers"], *spec["containers"]):
        own = container["securityContext"]
        assert own == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        # The operator mounts its token under /var/run/secrets, the same folder: nothing else fits there.
        paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
        assert not [path for path in paths if path.startswith(("/run/secrets", "/var/run/secrets"))]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_cluster_sets_no_variables_for_services(overlays: dict[str, list[Manifest]], overlay: str) -> None:
    # A Service named `gateway` would set GATEWAY_PORT=tcp://…, and the gateway would refuse to start.
    assert all(pod["spec"]["enableServiceLinks"] is False for _, pod in pods(overlays[overlay]))


def test_services_have_probes_and_bounds_and_time_to_drain(base: list[Manifest]) -> None:
    for service in SERVICES:
        pod = kind(base, "Deployment")[service]["spec"]["template"]["spec"]
        container = pod["containers"][0]
        probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
        assert {name: probe["path"] for name, probe in probes.items()} == {
            "startup": "/livez",
            "readiness": "/readyz",
            "liveness": "/livez",
        }
        assert {probe["port"] for probe in probes.values()} == {"ops"}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        grace = int(manifests.environment(base, service)["SHUTDOWN_GRACE_S"])
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        # The chassis closes what is open in at most 12 s after the drain.
        assert pod["terminationGracePeriodSeconds"] >= pause + grace + 12


def test_services_survive_a_drained_node(base: list[Manifest]) -> None:
    for service in SERVICES:
        budget = kind(base, "PodDisruptionBudget")[service]["spec"]
        assert budget["maxUnavailable"] == 1
        spec = kind(base, "Deployment")[service]["spec"]
        assert budget["selector"] == spec["selector"]
        keys = [c["topologyKey"] for c in spec["template"]["spec"]["topologySpreadConstraints"]]
        assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_a_deployment_that_an_autoscaler_scales_has_no_replica_count(
    overlays: dict[str, list[Manifest]],
) -> None:
    found = overlays["production"]
    scaled = {m["spec"]["scaleTargetRef"]["name"] for m in kind(found, "ScaledObject").values()}
    scaled |= {m["spec"]["scaleTargetRef"]["name"] for m in kind(found, "HorizontalPodAutoscaler").values()}
    assert scaled == {"gateway", "email", "batch-processor"}
    reported = {name for name, found in kind(found, "Deployment").items() if "replicas" in found["spec"]}
    assert reported & scaled == set()


@pytest.mark.parametrize("way_in", ["gateway-api", "ingress"])
def test_behind_a_proxy_limits_per_address_count_clients_and_not_the_proxy(k8s: Path, way_in: str) -> None:
    found = manifests.environment(manifests.combine(k8s, (way_in,)), "gateway")
    networks = found["GATEWAY_TRUSTED_PROXIES"].split(",")
    limits = ConnectionLimits(trusted_proxies=tuple(map(ipaddress.ip_network, networks)))
    admission = Admission(limits)
    assert all(admission.is_trusted(pod) for pod in ("10.244.1.7", "172.17.0.3", "192.168.9.9", "fd00:10::7"))
    assert not admission.is_trusted("203.0.113.7")


def test_the_production_overlay_trusts_the_proxy_in_front_of_it_and_other_overlays_trust_nobody(
    overlays: dict[str, list[Manifest]], base: list[Manifest]
) -> None:
    assert manifests.environment(overlays["production"], "gateway")["GATEWAY_TRUSTED_PROXIES"]
    for found in (base, overlays["local"], overlays["external"]):
        assert "GATEWAY_TRUSTED_PROXIES" not in manifests.environment(found, "gateway")


def test_scalers_watch_queues_and_tables_that_exist(overlays: dict[str, list[Manifest]]) -> None:
    waiting = {
        "email": ["email.send", "email.excess", "email.bulk"],
        "batch-processor": ["FROM chunks WHERE state = 'ready'"],
    }
    for name, scaler in kind(overlays["production"], "ScaledObject").items():
        for trigger, waits in zip(scaler["spec"]["triggers"], waiting[name], strict=True):
            if trigger["type"] == "rabbitmq":
                assert trigger["metadata"]["queueName"] in [queue.name for queue in TOPOLOGIES[name].queues]
            assert waits in trigger["metadata"].get("query", trigger["metadata"].get("queueName"))
            login = kind(overlays["production"], "TriggerAuthentication")[
                trigger["authenticationRef"]["name"]
            ]
            own = {"email": "email-secrets", "batch-processor": "batch-processor-scaler"}[name]
            assert login["spec"]["secretTargetRef"][0]["name"] == own


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_traffic_that_a_network_policy_names_passes(
    overlays: dict[str, list[Manifest]], overlay: str
) -> None:
    policies = kind(overlays[overlay], "NetworkPolicy")
    assert policies["default-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    own = {"app.kubernetes.io/name": "batch-processor"}
    for policy in policies.values():
        for rule in policy["spec"].get("egress", []):
            assert rule.get("ports"), "an egress rule without a port is a hole"
        if policy["spec"]["podSelector"].get("matchLabels") == own:
            raise AssertionError("the batch processor needs no way out")


@pytest.mark.parametrize(
    ("name", "service"), [("batch-processor-requests", "batch-processor"), ("gateway-webhooks", "gateway")]
)
def test_items_and_webhooks_reach_public_addresses_only_where_egress_is_opened(
    k8s: Path, name: str, service: str
) -> None:
    found = manifests.combine(k8s, ("http-requests",), on="overlays/local")
    policy = kind(found, "NetworkPolicy")[name]["spec"]
    assert policy["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": service}
    [rule] = policy["egress"]
    [block] = [peer["ipBlock"] for peer in rule["to"]]
    assert block["cidr"] == "0.0.0.0/0"
    assert {"10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "192.168.0.0/16"} <= set(block["except"])
    assert [port["port"] for port in rule["ports"]] == [80, 443]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_that_pods_refer_to_exists(overlays: dict[str, list[Manifest]], overlay: str) -> None:
    assert_nothing_is_missing(overlays[overlay])


def assert_nothing_is_missing(found: list[Manifest]) -> None:
    secrets = set(kind(found, "Secret")) | {
        made["spec"]["target"]["name"] for made in kind(found, "ExternalSecret").values()
    }
    # What operators make: certificates, and the authority of a database cluster.
    secrets |= {made["spec"]["secretName"] for made in kind(found, "Certificate").values()}
    secrets |= {f"{name}-ca" for name in kind(found, "Cluster")}
    maps, accounts = set(kind(found, "ConfigMap")), set(kind(found, "ServiceAccount"))
    for name, pod in pods(found):
        assert pod["spec"].get("serviceAccountName", "default") in {*accounts, "default"}, name
        for volume in pod["spec"].get("volumes", []):
            assert volume.get("secret", {}).get("secretName", None) in {*secrets, None}, (name, volume)
            for source in volume.get("projected", {}).get("sources", []):
                assert source["secret"]["name"] in secrets, (name, source)
            assert volume.get("configMap", {}).get("name", None) in {*maps, None}, (name, volume)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_our_own_images_are_never_pulled(overlays: dict[str, list[Manifest]], overlay: str) -> None:
    host = "localhost" if overlay == "local" else "registry.example.com"
    for name, pod in pods(overlays[overlay]):
        (container,) = pod["spec"]["containers"]
        if "tickwire" in container["image"]:
            assert container["image"].startswith(f"{host}/tickwire/"), name
            assert container["imagePullPolicy"] == ("Never" if overlay == "local" else "IfNotPresent"), name


def test_a_migration_job_is_named_by_its_version_and_never_changes(k8s: Path, tmp_path: Path) -> None:
    first = kind(manifests.build(k8s / "overlays/local"), "Job")
    for name, job in first.items():
        tag = job["spec"]["template"]["spec"]["containers"][0]["image"].partition(":")[2]
        assert name.endswith(tag.replace(".", "-")), name
    # Other passwords, as after a rotation: `apply` must find the same Jobs.
    assert kind(manifests.build(manifests.copy(tmp_path) / "overlays/local"), "Job") == first


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_are_checked_by_jobs_that_have_what_the_pods_have(k8s: Path, overlay: str) -> None:
    found = manifests.build(k8s / "checks" / overlay)
    jobs = kind(found, "Job")
    for service in SERVICES:
        job, pod = jobs[f"check-{service}"], kind(found, "Deployment")[service]["spec"]["template"]["spec"]
        manifests.check(job)
        (check,) = job["spec"]["template"]["spec"]["containers"]
        for name in ("image", "imagePullPolicy", "env", "envFrom", "volumeMounts", "securityContext"):
            assert check[name] == pod["containers"][0][name], name
        for name in ("volumes", "securityContext", "automountServiceAccountToken", "enableServiceLinks"):
            assert job["spec"]["template"]["spec"][name] == pod[name], name
        assert check["command"][-3:-1] == ["chassis.inspecting", "check"]
        # Wrong settings are not tried again, and a job that cannot run ends.
        (rule,) = job["spec"]["podFailurePolicy"]["rules"]
        assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [2])
        assert job["spec"]["activeDeadlineSeconds"] <= 300
        source = check["envFrom"][0]["configMapRef"]["name"]
        marks = kind(found, "ConfigMap")[source]["metadata"]["labels"]
        assert marks["app.kubernetes.io/component"] == "settings"
    assert_nothing_is_missing(found)


def test_in_production_servers_are_reached_over_verified_tls(overlays: dict[str, list[Manifest]]) -> None:
    found = overlays["production"]
    assert kind(found, "RabbitmqCluster")["rabbitmq"]["spec"]["tls"]["disableNonTLSListeners"] is True
    for name, pod in pods(found):
        if pod["metadata"]["labels"]["app.kubernetes.io/component"] in ("service", "migrations"):
            (container,) = pod["spec"]["containers"]
            assert "/run/authorities" in [mount["mountPath"] for mount in container["volumeMounts"]], name
    exporter = kind(found, "Deployment")["postgres-exporter"]["spec"]["template"]["spec"]["containers"][0]
    assert "sslmode=verify-full" in next(
        e["value"] for e in exporter["env"] if e["name"] == "DATA_SOURCE_URI"
    )


def test_in_production_only_its_own_role_may_enter_a_database_as_in_compose(
    overlays: dict[str, list[Manifest]],
) -> None:
    spec = kind(overlays["production"], "Cluster")["postgres"]["spec"]
    made = spec["bootstrap"]["initdb"]
    said = " ".join(made["postInitSQL"] + made["postInitApplicationSQL"])
    closed = " ".join(re.findall(r"REVOKE ALL ON DATABASE (.*?) FROM PUBLIC", said))
    databases = {"gateway", "stock_data", "emailer", "batch_processor"}
    assert set(re.findall(r"\w+", closed)) == databases | {"postgres", "template1"}
    script = (REPOSITORY / "deploy/postgres/create-databases.sh").read_text()
    assert "GRANT CONNECT ON DATABASE postgres TO metrics" in script
    assert "GRANT CONNECT ON DATABASE postgres TO metrics" in said
    assert spec["postgresql"]["synchronous"]["dataDurability"] == "required"


def test_an_overlay_of_existing_servers_needs_no_operator_and_has_no_server(
    overlays: dict[str, list[Manifest]],
) -> None:
    found = overlays["external"]
    groups = {manifest["apiVersion"].rpartition("/")[0] for manifest in found}
    assert groups <= {"", "apps", "batch", "autoscaling", "policy", "networking.k8s.io"}
    assert not {"rabbitmq", "postgres"} & {name for name, _ in pods(found)}
    known = [manifests.environment(found, service) for service in SERVICES]
    assert all({"POSTGRES_DSN_FILE", "RABBITMQ_URL_FILE"} <= environment.keys() for environment in known)


def test_every_dashboard_is_in_a_config_map_for_grafana(overlays: dict[str, list[Manifest]]) -> None:
    maps = kind(overlays["production"], "ConfigMap").values()
    marked = [found for found in maps if found["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
    carried = {name: text for found in marked for name, text in found["data"].items()}
    folder = REPOSITORY / "deploy/grafana/dashboards"
    assert carried == {file.name: file.read_text() for file in folder.glob("*.json")}
    # `kubectl apply` keeps what it applied in an annotation, which may have 256 KiB.
    assert all(len(text) < 200_000 for text in carried.values())


def test_alert_rules_are_generated_from_those_of_prometheus() -> None:
    assert prometheus_rules.FILE.read_text() == prometheus_rules.render(), (
        "run: PYTHONPATH=deploy .venv/bin/python -m containers.prometheus_rules"
    )


def test_no_secret_is_in_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files", "k8s"], cwd=REPOSITORY, capture_output=True, text=True)
    for name in listed.stdout.split():
        text = (REPOSITORY / name).read_text()
        assert "/secrets/" not in f"/{name}", name
        if name.endswith(".yaml"):
            kinds = [document["kind"] for document in yaml.safe_load_all(text) if document]
            assert "Secret" not in kinds, name
        assert not re.search(r"://[^/\s]+:[^/\s…]+@", text), name


def test_yaml_and_dockerfiles_are_clean() -> None:
    paths = [REPOSITORY / name for name in ("compose.yaml", "k8s", "deploy/containers")]
    rules = (
        "{extends: default, rules: {line-length: {max: 130}, document-start: disable, octal-values: enable,"
        " truthy: {check-keys: false}}}"
    )
    commands: list[list[str | Path]] = [
        [manifests.tool("yamllint"), "--strict", "-d", rules, *paths],
        [manifests.tool("hadolint"), REPOSITORY / "deploy/Dockerfile"],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
