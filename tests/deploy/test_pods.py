"""The pods of the local overlay, really run: they start in any order, answer, drain, and are restarted."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deploy import kubectl, manifests, told
from deploy.composed import REPOSITORY, SERVICES, until
from deploy.engine import Engine
from deploy.kubelet import Node, node
from deploy.manifests import Manifest, kind
from deploy.pods import Pod
from support import pasted
from upkeep import backups, kubernetes_stack, rotation
from upkeep.kubernetes_stack import KubernetesStack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(480)]

MIB = 1 << 20
# Probes ask ten times as often: what is shown is that they work, not how long they wait.
HURRY = 10


@dataclass
class Pods:
    """The node, the manifests on it, and a way to talk to the gateways' Service."""

    node: Node
    manifests: list[Manifest]
    engine: Engine
    folder: Path

    @property
    def key(self) -> str:
        """The administrator's key, as it was last mounted."""
        return (self.folder / "k8s/overlays/local/secrets/gateway/api-key").read_text()

    def api(self) -> httpx.Client:
        """Return a client of one gateway that is an endpoint now."""
        address = self.node.endpoints("gateway", "http")[0]
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=f"http://{address}", headers=headers, timeout=20, trust_env=False)

    def inspect(self, pod: Pod) -> dict[str, Any]:
        """Return what the engine knows of the container of `pod`."""
        found: list[dict[str, Any]] = json.loads(self.engine.docker("inspect", pod.container))
        return found[0]

    def subjects(self) -> list[str]:
        """Return the subjects of all mails that arrived."""
        (address,) = self.node.endpoints("mailpit", "web")
        found: list[str] = []
        while True:
            query = {"start": len(found), "limit": 500}
            answer = httpx.get(f"http://{address}/api/v1/messages", params=query, timeout=20, trust_env=False)
            page = answer.json()["messages"]
            found += [message["Subject"] for message in page]
            if len(page) < 500:
                return found


@pytest.fixture(scope="module")
def pods(engine: Engine) -> Iterator[Pods]:
    tag = f"test-{uuid4().hex[:8]}"
    variables = {"TICKWIRE_TAG": tag, "COMPOSE_FILE": str(REPOSITORY / "compose.yaml")}
    own = replace(engine, environment={**engine.environment, **variables})
    own.docker("compose", "build", *SERVICES, timeout_s=400)
    with TemporaryDirectory(prefix="tickwire-pods-") as name:
        folder = Path(name)
        # Only root gets in here, but the users of the containers must get through.
        folder.chmod(0o711)
        local = manifests.build(manifests.copy(folder) / "overlays/local")
        images = {
            f"localhost/tickwire/{service}:0.1.0": f"localhost/tickwire/{service}:{tag}"
            for service in SERVICES
        }
        with node(own, local, folder / "volumes", images=images, hurry=HURRY) as running:
            running.wait(timeout_s=180)
            yield Pods(running, local, own, folder)
    own.docker("rmi", "--force", *images.values())


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
            assert 0 < found["HostConfig"]["Memory"] <= 512 * MIB, service


def test_a_quote_a_mail_and_a_batch_pass_through_the_cluster(pods: Pods) -> None:
    subject = f"from pods {uuid4()}"
    with pods.api() as api:
        assert api.get("/v1/stocks/AAPL").json()["symbol"] == "AAPL"
        assert ended(api, accepted(api, "/v1/emails", letter(subject)))["status"] == "delivered"
        items = [{"symbol": "AAPL", "indicators": ["sma:20"]}]
        batch = accepted(api, "/v1/batches", {"operation": "stock.indicators", "items": items})
        assert ended(api, batch)["counts"]["succeeded"] == 1
    assert pods.subjects().count(subject) == 1


def test_the_lines_of_the_readme_run_as_they_are_pasted(pods: Pods, tmp_path: Path) -> None:
    addresses = {"127.0.0.1:8080": pods.node.endpoints("gateway", "http")[0]}
    for block in pasted.blocks("README.md", below="A first minute"):
        pasted.run(block, tmp_path, key=pods.key, addresses=addresses)


def test_the_upgrade_check_of_pods_counts_pending_migrations(pods: Pods) -> None:
    with kubectl.on_path(pods.node, pods.engine) as environment:
        code, said = told.call("upgrade-check", "kubernetes", environment=environment)
    assert said.count(" 0 pending\n") == 4, said
    assert (code, said.splitlines()[-1]) == (0, "Go ahead: docs/guides/upgrade.md")


def test_a_support_bundle_of_pods_contains_diagnostics_and_no_secret(pods: Pods, tmp_path: Path) -> None:
    with kubectl.on_path(pods.node, pods.engine) as environment:
        texts = told.bundle("kubernetes", tmp_path, environment=environment)
    told.check_helps(texts)
    assert pods.key not in "".join(texts.values())


@pytest.fixture
def upkeep(pods: Pods) -> Iterator[KubernetesStack]:
    overlay = pods.folder / "k8s/overlays/local"
    with kubectl.on_path(pods.node, pods.engine) as environment:
        yield kubernetes_stack.at(REPOSITORY, {**environment, "KUBE_OVERLAY": str(overlay)})


def test_a_login_of_pods_is_rotated_in_server_secret_and_pod(pods: Pods, upkeep: KubernetesStack) -> None:
    old, before = upkeep.secret("rabbitmq-email"), {pod.name for pod in pods.node.pods}
    rotation.rotate(upkeep, "rabbitmq-email", new=None, finish=False, say=print)
    assert may_log_in(upkeep, "rabbitmq-email", upkeep.secret("rabbitmq-email"))
    assert not may_log_in(upkeep, "rabbitmq-email", old)
    assert {pod.owner for pod in pods.node.pods if pod.name not in before} == {"email"}
    with pods.api() as api:
        assert ended(api, accepted(api, "/v1/emails", letter("rotated")))["status"] == "delivered"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_secret_of_pods_is_rotated_under_load_and_no_mail_is_lost(
    pods: Pods, upkeep: KubernetesStack
) -> None:
    names = set(rotation.names(upkeep)) - {"postgres", "rabbitmq"}
    old = {name: upkeep.secret(name) for name in names}
    rotation.rotate(upkeep, "api-key", new=None, finish=False, say=print)
    with pods.api() as api:
        api.headers["authorization"] = f"Bearer {old['api-key']}"
        assert api.get("/v1/me").status_code == 401
    with Load(pods) as load:
        for name in ("pepper", "email-secrets-key", "smtp-password", "postgres", "rabbitmq"):
            rotation.rotate(upkeep, name, new="of the relay", finish=False, say=print)
        rotation.rotate(upkeep, "pepper", new=None, finish=True, say=print)
    assert {name for name in names if upkeep.secret(name) == old[name]} == set()
    logins = [name for name in names if name.startswith(("postgres-", "rabbitmq-"))]
    assert [name for name in logins if may_log_in(upkeep, name, old[name])] == []
    assert [name for name in logins if not may_log_in(upkeep, name, upkeep.secret(name))] == []
    assert len(load.paths) > 20
    with pods.api() as api:
        assert {ended(api, path)["status"] for path in load.paths} == {"delivered"}
    arrived = [subject for subject in pods.subjects() if subject.startswith(load.mark)]
    assert set(load.subjects) <= set(arrived)


@pytest.mark.long
def test_a_restored_backup_of_pods_has_what_was_accepted_before_it(
    pods: Pods, upkeep: KubernetesStack, tmp_path: Path
) -> None:
    with pods.api() as api:
        before = accepted(api, "/v1/emails", letter("backed up"))
        file = backups.back_up(upkeep, tmp_path, passphrase=None, keep=2, say=print)
        later = accepted(api, "/v1/emails", letter("later"))
        assert ended(api, later)["status"] == "delivered"
    backups.restore(upkeep, file, passphrase=None, say=print)
    with pods.api() as api:
        assert ended(api, before)["status"] == "delivered"
        assert api.get(later).status_code == 404


def test_a_rolled_out_release_fails_no_request_and_loses_no_mail(pods: Pods) -> None:
    with Load(pods) as load:
        for service in ("gateway", "email"):
            codes = pods.node.roll(service)
            assert set(codes) == {0}, service
    assert len(load.paths) > 20
    assert load.failures == []
    with pods.api() as api:
        assert {ended(api, path)["status"] for path in load.paths} == {"delivered"}
    arrived = [subject for subject in pods.subjects() if subject.startswith(load.mark)]
    assert sorted(arrived) == sorted(load.subjects)


def test_a_broker_that_is_replaced_keeps_the_messages_that_waited(pods: Pods) -> None:
    (email,) = pods.node.of("email")
    (broker,) = pods.node.of("rabbitmq")
    others = {pod.name: pod.restarts for pod in pods.node.pods if pod is not broker}
    with pods.api() as api:
        path = accepted(api, "/v1/emails", letter("before"))
        new = pods.node.replace(broker)
        later = accepted(api, "/v1/emails", letter("while it was away"))
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


@dataclass
class Load:
    """Mails, one after the other, to the endpoints of the gateway, from a thread of its own."""

    pods: Pods
    mark: str = field(default_factory=lambda: uuid4().hex)
    paths: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(timeout=30)

    def _send(self) -> None:
        while not self._ending.is_set():
            subject = f"{self.mark} {len(self.paths)}"
            try:
                with self.pods.api() as api:
                    self.paths.append(accepted(api, "/v1/emails", letter(subject)))
                self.subjects.append(subject)
            except (AssertionError, httpx.HTTPError) as error:
                self.failures.append(repr(error))
            time.sleep(0.1)


def letter(subject: str) -> dict[str, Any]:
    return {"to": ["ann@example.com"], "subject": subject, "text": "It works."}


def accepted(api: httpx.Client, path: str, body: dict[str, Any]) -> str:
    answer = api.post(path, json=body)
    assert answer.status_code == 202, answer.text
    return f"{path}/{answer.json()['id']}"


def ended(api: httpx.Client, path: str) -> dict[str, Any]:
    """Return what `path` shows in the end."""

    def look() -> dict[str, Any] | None:
        answer = api.get(path)
        assert answer.status_code in (200, 503), answer.text
        found: dict[str, Any] = answer.json()
        return found if found["status"] in ("delivered", "failed", "completed", "cancelled") else None

    return until(look, timeout_s=120)


def may_log_in(upkeep: KubernetesStack, name: str, password: str) -> bool:
    """Return whether the server itself accepts a password, `postgres-<role>` or `rabbitmq-<user>`."""
    kind, _, user = name.partition("-")
    if kind == "postgres":
        return upkeep.login(user, password).attempt().returncode == 0
    return upkeep.rabbitmqctl("authenticate_user", user).attempt(password + "\n").returncode == 0
