"""The pods of the local overlay, really run: they start in any order, answer, drain, and are restarted."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import pasted, touring
from support.deployment import cluster, container_commands, kubectl, verbs
from support.deployment.accepted import accept, ended, ends, letter
from support.deployment.cluster import ClusterLoad, Pods
from support.deployment.composed import SERVICES, until
from support.deployment.engine import Engine
from support.deployment.manifests import kind
from support.deployment.rotating import may_log_in
from upkeep import rotation
from upkeep.kubernetes_stack import KubernetesStack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(480)]

MIB = 1 << 20


@pytest.fixture(scope="module")
def pods(engine: Engine, images: dict[str, str]) -> Iterator[Pods]:
    with cluster.running(engine, images) as found:
        yield found


@pytest.fixture
def upkeep(pods: Pods) -> Iterator[KubernetesStack]:
    with pods.upkeep() as found:
        yield found


def test_everything_starts_at_once_and_nothing_is_started_twice(pods: Pods) -> None:
    jobs = kind(pods.manifests, "Job")
    assert all(pod.ended for job in jobs for pod in pods.node.of(job))
    assert len(pods.node.of("gateway")) == 2
    assert {pod.name: pod.restarts for pod in pods.node.pods if pod.restarts} == {}


def test_pods_run_with_the_restrictions_and_memory_limits_of_their_manifests(pods: Pods) -> None:
    for service in SERVICES:
        for pod in pods.node.of(service):
            found = pods.inspect(pod)
            status = pods.engine.docker("exec", pod.container, "cat", "/proc/1/status")
            lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            assert set(lines["Uid"].split()) == {"65532"}, service
            assert int(lines["CapBnd"], 16) == 0, service
            assert lines["NoNewPrivs"] == "1", service
            assert found["HostConfig"]["ReadonlyRootfs"], service
            assert 0 < found["HostConfig"]["Memory"] <= 576 * MIB, service


def test_the_tour_of_everything_passes_through_the_cluster(pods: Pods, upkeep: KubernetesStack) -> None:
    # Nothing is forwarded here, so the addresses are those of pods; the key is found as elsewhere.
    gateway, mailbox = pods.node.endpoints("gateway", "http")[0], pods.node.endpoints("mailpit", "web")[0]
    addresses = f"ARGS=--url http://{gateway} --mailbox http://{mailbox}"
    touring.check("WAY=kubernetes", addresses, environment=upkeep.kubectl.environment)


def test_the_lines_of_the_readme_run_as_they_are_pasted(pods: Pods, tmp_path: Path) -> None:
    addresses = {"127.0.0.1:8080": pods.node.endpoints("gateway", "http")[0]}
    for block in pasted.blocks("README.md", below="A first minute"):
        pasted.run(block, tmp_path, key=pods.key, addresses=addresses)


def test_the_upgrade_check_of_pods_counts_pending_migrations(pods: Pods) -> None:
    with kubectl.on_path(pods.node, pods.engine) as environment:
        code, said = container_commands.call("upgrade-check", "kubernetes", environment=environment)
    assert said.count(" 0 pending\n") == 4, said
    assert (code, said.splitlines()[-1]) == (0, "Go ahead: docs/guides/upgrade.md")


def test_a_support_bundle_of_pods_contains_diagnostics_and_no_secret(pods: Pods, tmp_path: Path) -> None:
    with kubectl.on_path(pods.node, pods.engine) as environment:
        texts = container_commands.bundle("kubernetes", tmp_path, environment=environment)
    container_commands.check_helps(texts)
    assert pods.key not in "".join(texts.values())


def test_a_login_of_pods_is_rotated_in_server_secret_and_pod(pods: Pods, upkeep: KubernetesStack) -> None:
    old, before = upkeep.secret("rabbitmq-email"), {pod.name for pod in pods.node.pods}
    rotation.rotate(upkeep, "rabbitmq-email", new=None, finish=False, say=print)
    assert may_log_in(upkeep, "rabbitmq-email", upkeep.secret("rabbitmq-email"))
    assert not may_log_in(upkeep, "rabbitmq-email", old)
    assert {pod.owner for pod in pods.node.pods if pod.name not in before} == {"email"}
    with pods.api() as api:
        assert ended(api, accept(api, "/v1/emails", letter("rotated")))["status"] == "delivered"


def test_a_lost_administrators_key_is_replaced_on_a_cluster(pods: Pods, upkeep: KubernetesStack) -> None:
    lost = pods.key
    said = verbs.call("kubernetes", "keys-reset", environment=upkeep.kubectl.environment)
    assert pods.key != lost
    assert pods.key in said
    with pods.api() as api:
        assert api.get("/v1/me").status_code == 200


def test_a_rolled_out_release_fails_no_request_and_loses_no_mail(pods: Pods) -> None:
    with ClusterLoad(pods) as load:
        for service in ("gateway", "email"):
            codes = pods.node.roll(service)
            assert set(codes) == {0}, service
    assert len(load.paths) > 20
    assert load.failures == []
    with pods.api() as api:
        assert ends(api, load.paths) == {"delivered", "completed"}
    arrived = [subject for subject in pods.subjects() if subject.startswith(load.mark)]
    assert sorted(arrived) == sorted(load.subjects)


def test_a_broker_that_is_replaced_keeps_the_messages_that_waited(pods: Pods) -> None:
    (email,) = pods.node.of("email")
    (broker,) = pods.node.of("rabbitmq")
    others = {pod.name: pod.restarts for pod in pods.node.pods if pod is not broker}
    with pods.api() as api:
        path = accept(api, "/v1/emails", letter("before"))
        new = pods.node.replace(broker)
        later = accept(api, "/v1/emails", letter("while it was away"))
        assert ended(api, path)["status"] == ended(api, later)["status"] == "delivered"
    until(lambda: True if new.ready and email.ready else None)
    # Liveness touches no dependency: nobody was started again because of the broker.
    assert {pod.name: pod.restarts for pod in pods.node.pods if pod is not new} == others


def test_a_process_that_hangs_gets_no_more_requests_and_is_restarted(pods: Pods) -> None:
    hung, healthy = pods.node.of("gateway")
    # Not by `docker pause`: the engine would need long to end what it has paused itself.
    os.kill(pods.inspect(hung)["State"]["Pid"], signal.SIGSTOP)
    until(lambda: None if hung.ready else True)
    # On a busy machine a probe of the other one may be late, too: then it comes back.
    alone = [f"{healthy.address}:8080"]
    until(lambda: True if pods.node.endpoints("gateway", "http") == alone else None)
    until(lambda: True if hung.restarts == 1 and hung.ready else None, timeout_s=120)
    assert len(pods.node.endpoints("gateway", "http")) == 2
