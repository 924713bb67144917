"""The pods of the local overlay on a node of their own, a way to talk to them, and work that they accept."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import httpx

from support.deployment import kubectl, manifests, previous_images
from support.deployment.accepted import accept, letter
from support.deployment.composed import REPOSITORY, SERVICES
from support.deployment.engine import Engine
from support.deployment.kubelet import Node, node
from support.deployment.manifests import Manifest
from support.deployment.pods import Pod
from upkeep import kubernetes_stack
from upkeep.kubernetes_stack import KubernetesStack

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
        """Return the engine's record of the container of `pod`."""
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

    def sources(self) -> list[str]:
        """Return the file that each pod of a service has its chassis from."""
        words = ("/opt/tickwire/bin/python", "-c", previous_images.WHERE)
        pods = [pod for service in SERVICES for pod in self.node.of(service)]
        return [self.engine.docker("exec", pod.container, *words) for pod in pods]

    @contextmanager
    def upkeep(self) -> Iterator[KubernetesStack]:
        """Yield the stack as the verbs use it, for the block."""
        overlay = self.folder / "k8s/overlays/local"
        with kubectl.on_path(self.node, self.engine) as environment:
            yield kubernetes_stack.at(REPOSITORY, {**environment, "KUBE_OVERLAY": str(overlay)})


@contextmanager
def running(engine: Engine, images: Mapping[str, str]) -> Iterator[Pods]:
    """Yield a new cluster with secrets of its own; afterwards nothing of it is left.

    `images` are the names of the images by those in the manifests.
    """
    with TemporaryDirectory(prefix="tickwire-pods-") as name:
        folder = Path(name)
        # Only root gets in here, but the users of the containers must get through.
        folder.chmod(0o711)
        local = manifests.build(manifests.copy(folder) / "overlays/local")
        with node(engine, local, folder / "volumes", images=images, hurry=HURRY) as found:
            found.wait(timeout_s=180)
            yield Pods(found, local, engine, folder)


@dataclass
class ClusterLoad:
    """Mails and tasks, one after the other, to the endpoints of the gateway, from a thread of its own."""

    pods: Pods
    mark: str = field(default_factory=lambda: uuid4().hex)
    paths: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> ClusterLoad:
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(timeout=30)

    def _send(self) -> None:
        for number in itertools.count():
            if self._ending.wait(0.1):
                return
            subject = f"{self.mark} {number}"
            try:
                with self.pods.api() as api:
                    self.paths.append(accept(api, "/v1/emails", letter(subject)))
                    self.subjects.append(subject)
                    self.paths.append(accept(api, "/v1/tasks", {"operation": "echo", "payload": number}))
            # No gateway is ready: IndexError.
            except (AssertionError, IndexError, httpx.HTTPError) as error:
                self.failures.append(f"{datetime.now(UTC):%H:%M:%S} {error!r}")
