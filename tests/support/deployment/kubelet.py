"""The manifests of k8s/ run without a cluster: a Docker engine does what a node does with a pod.

It keeps their images, commands, environments, files, users, limits, probes, pauses and grace periods. A
Service is a name on one network; `endpoints` are the pods that it would lead to now. Scheduling, network
policies and autoscaling are missing, because there is only one node.
"""

from __future__ import annotations

import itertools
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from support.deployment.composed import until
from support.deployment.engine import Engine
from support.deployment.exits import Exits
from support.deployment.manifests import Manifest, kind, variables
from support.deployment.pods import Pod, Volumes

_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


class Node:
    """Runs what `manifests` say; `images` renames images, `hurry` divides the periods after the start.

    Pods that start later run what `images` names by then. All are on the network named `network`.
    """

    def __init__(
        self,
        engine: Engine,
        manifests: list[Manifest],
        folder: Path,
        *,
        images: Mapping[str, str],
        hurry: float = 1,
    ) -> None:
        self._engine = engine
        self._manifests = manifests
        self._volumes = Volumes(manifests, folder)
        self.images = images
        self._hurry = hurry
        self.network = f"tickwire-node-{uuid4().hex[:8]}"
        self._exits = Exits(engine)
        # One for all: each new client reads the authorities of the machine. No connection is kept.
        self._probing = httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
        self._asking = ThreadPoolExecutor(16)
        self._closing = threading.Event()
        self._watches: list[threading.Thread] = []
        self._work = ThreadPoolExecutor(8)
        self._under_way: dict[str, Future[Any]] = {}
        # Of pods, which threads start at the same time.
        self._numbers = itertools.count(1)
        self.pods: list[Pod] = []

    def open(self) -> None:
        """Start every workload at once, as `kubectl apply` does."""
        self._engine.docker("network", "create", self.network)
        workloads = [found for found in self._manifests if "template" in found.get("spec", {})]
        replicas = [found for found in workloads for _ in range(_replicas(found, self._manifests))]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self.add, replicas))

    def close(self) -> None:
        """Remove all, once nothing starts or removes a container any more: an answer may take a while."""
        self._closing.set()
        self._work.shutdown(cancel_futures=True)
        for watch in self._watches:
            watch.join()
        with ExitStack() as also:
            also.callback(self._probing.close)
            also.callback(self._asking.shutdown)
            also.callback(self._exits.close)
            listed = ("ps", "--all", "--quiet", "--filter", f"network={self.network}")
            if ids := self._engine.docker(*listed).split():
                self._engine.docker("rm", "--force", *ids)
            self._engine.docker("network", "rm", self.network)

    def of(self, owner: str) -> list[Pod]:
        """Return the pods of a workload, those included that are leaving."""
        return [pod for pod in self.pods if pod.owner == owner]

    def workload(self, deployment: str) -> Manifest:
        """Return a Deployment with the number of pods that it has now."""
        found = kind(self._manifests, "Deployment")[deployment]
        staying = [pod for pod in self.of(deployment) if not pod.leaving]
        return {**found, "spec": {**found["spec"], "replicas": len(staying)}}

    def endpoints(self, service: str, port: str) -> list[str]:
        """Return the addresses, `host:port`, that the Service leads to now: pods that are ready and stay."""
        selector = kind(self._manifests, "Service")[service]["spec"]["selector"].items()
        chosen = [pod for pod in self.pods if selector <= pod.template["metadata"]["labels"].items()]
        return [f"{pod.address}:{pod.port(port)}" for pod in chosen if pod.ready and not pod.leaving]

    def wait(self, *, timeout_s: float) -> None:
        """Wait until every pod is ready and every job done. Raises `TimeoutError` with the others' logs."""
        try:
            until(lambda: None if self.waiting() else True, timeout_s=timeout_s)
        except TimeoutError:
            logs = "\n".join(f"{pod.name}:\n{self.logs(pod)}" for pod in self.waiting())
            raise TimeoutError(f"not ready after {timeout_s} s:\n{logs}") from None

    def waiting(self) -> list[Pod]:
        """Return the pods that are not ready, or not done."""
        return [pod for pod in self.pods if not (pod.ready or pod.ended)]

    def logs(self, pod: Pod) -> str:
        """Return the last lines that a pod wrote."""
        return self._engine.docker("logs", "--tail", "20", pod.container)

    def add(self, workload: Manifest) -> Pod:
        """Return one more pod of a workload."""
        if self._closing.is_set():
            raise RuntimeError("the node is closing")
        owner = workload["metadata"]["name"]
        number = next(self._numbers)
        # The pods of a StatefulSet keep their names, and with them their data.
        names = {"StatefulSet": f"{owner}-0", "Pod": owner}
        name = names.get(workload["kind"], f"{owner}-{number}")
        pod = Pod(number, name, owner, workload["spec"]["template"])
        self.pods.append(pod)
        self._run(pod, workload)
        watch = threading.Thread(target=self._watch, args=(pod, workload), name=pod.name, daemon=True)
        self._watches.append(watch)
        watch.start()
        return pod

    def delete(self, pod: Pod) -> int:
        """Let a pod leave: no endpoint any more, a pause, SIGTERM, a grace period. Returns its exit code."""
        pod.leave()
        pause_s = pod.main.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        time.sleep(pause_s)
        grace_s = int(pod.spec["terminationGracePeriodSeconds"]) - pause_s
        self._engine.docker("stop", "--time", str(grace_s), pod.container, timeout_s=grace_s + 30)
        code = int(self._engine.docker("inspect", "--format", "{{.State.ExitCode}}", pod.container))
        self._engine.docker("rm", "--force", pod.container)
        # Only now: who waits until it is gone may close the node next.
        self.pods.remove(pod)
        return code

    def roll(self, deployment: str) -> list[int]:
        """Replace the pods as `maxSurge: 1, maxUnavailable: 0` says. Returns the exit codes."""
        workload = kind(self._manifests, "Deployment")[deployment]
        codes: list[int] = []

        def is_over(new: Pod) -> bool | None:
            return True if new.ready or self._closing.is_set() else None

        for old in self.of(deployment):
            new = self.add(workload)
            until(partial(is_over, new), timeout_s=90)
            codes.append(self.delete(old))
        return codes

    def apply(self, secrets: list[Manifest]) -> None:
        """Change Secrets; pods that are there see it in their files, as a node sees to in time."""
        self._volumes.change(kind(secrets, "Secret"), self.pods)

    def restart(self, deployment: str) -> None:
        """Begin to replace the pods of a Deployment; `finish` waits for the end."""
        self._under_way[deployment] = self._work.submit(self.roll, deployment)

    def scale(self, deployment: str, replicas: int) -> None:
        """Begin to add or to delete pods of a Deployment."""
        workload = kind(self._manifests, "Deployment")[deployment]
        there = self.of(deployment)
        for pod in there[replicas:]:
            pod.leave()
            self._work.submit(self.delete, pod)
        for _ in range(replicas - len(there)):
            self.add(workload)

    def finish(self, deployment: str, *, timeout_s: float) -> None:
        """Wait until a roll-out is over and all pods of the workload are ready."""
        if (roll := self._under_way.pop(deployment, None)) is not None:
            roll.result(timeout=timeout_s)
        until(
            lambda: True if all(pod.ready for pod in self.of(deployment)) else None,
            timeout_s=timeout_s,
        )

    def replace(self, pod: Pod) -> Pod:
        """Delete the pod of a StatefulSet; its next one has the same name and data."""
        (workload,) = (found for found in self._manifests if _named(found, "StatefulSet", pod.owner))
        self.delete(pod)
        return self.add(workload)

    def _run(self, pod: Pod, workload: Manifest) -> None:
        services = kind(self._manifests, "Service").items()
        labels = pod.template["metadata"]["labels"].items()
        names = [name for name, found in services if found["spec"].get("selector", {}).items() <= labels]
        # A node asks by the probes of the manifest; it does not know the image's own check.
        command = ["run", "--detach", "--no-healthcheck", "--network", self.network, "--hostname", pod.name]
        command += [word for name in names for word in ("--network-alias", name)]
        command += _limits(pod)
        found = variables(self._manifests, pod.main)
        command += [word for name, value in found.items() for word in ("--env", f"{name}={value}")]
        for source, target, is_read_only in self._volumes.mounts(pod, workload):
            command += ["--volume", f"{source}:{target}{':ro' if is_read_only else ''}"]
        words = [*pod.main.get("command", []), *pod.main.get("args", [])]
        if "command" in pod.main:
            command += ["--entrypoint", words.pop(0)]
        image = pod.main["image"]
        pod.container = self._engine.docker(*command, self.images.get(image, image), *words).strip()
        address = f"{{{{(index .NetworkSettings.Networks {self.network!r}).IPAddress}}}}".replace("'", '"')
        pod.address = self._engine.docker("inspect", "--format", address, pod.container).strip()
        pod.started = False

    def _watch(self, pod: Pod, workload: Manifest) -> None:
        while not (self._closing.wait(0.2) or pod.leaving):
            code = self._exits.code(pod.container)
            if code == 0 and pod.spec.get("restartPolicy") == "Never":
                pod.ended = True
                return
            if code is not None:
                self._restart(pod, workload)
            else:
                self._probe(pod, workload)

    def _probe(self, pod: Pod, workload: Manifest) -> None:
        if not pod.started:
            verdict = self._ask(pod, "startupProbe")
            pod.started = verdict is True
            if verdict is False:
                self._restart(pod, workload)
            return
        # At once, as a node does: one that hangs is waited for by both.
        readiness = self._asking.submit(self._ask, pod, "readinessProbe")
        alive = self._ask(pod, "livenessProbe")
        if (ready := readiness.result()) is not None:
            pod.ready = ready
        if alive is False:
            self._restart(pod, workload)

    def _ask(self, pod: Pod, name: str) -> bool | None:
        """Return True when the probe succeeds, False when it failed too often, None while undecided."""
        probe = pod.main.get(name)
        if probe is None:
            return True
        period_s = probe.get("periodSeconds", 10) / (1 if name == "startupProbe" else self._hurry)
        if time.monotonic() - pod.asked_at.get(name, 0) < period_s:
            return None
        pod.asked_at[name] = time.monotonic()
        if self._succeeds(pod, probe):
            pod.failures[name] = 0
            return True
        pod.failures[name] = pod.failures.get(name, 0) + 1
        return False if pod.failures[name] >= probe.get("failureThreshold", 3) else None

    def _succeeds(self, pod: Pod, probe: Mapping[str, Any]) -> bool:
        # Shortened less than the periods are: on a busy machine a healthy one answers late.
        timeout_s = max(1, probe.get("timeoutSeconds", 1) / min(self._hurry, 2))
        try:
            if "exec" in probe:
                return self._runs_well(pod, probe["exec"]["command"], timeout_s)
            if "tcpSocket" in probe:
                address = (pod.address, pod.port(probe["tcpSocket"]["port"]))
                socket.create_connection(address, timeout=timeout_s).close()
                return True
            asked = probe["httpGet"]
            url = f"http://{pod.address}:{pod.port(asked['port'])}{asked['path']}"
            return 200 <= self._probing.get(url, timeout=timeout_s).status_code < 400
        except (OSError, httpx.HTTPError, subprocess.SubprocessError):
            return False

    def _runs_well(self, pod: Pod, command: Sequence[str], timeout_s: float) -> bool:
        words = ["docker", "exec", pod.container, *command]
        done = subprocess.run(words, env=self._engine.environment, capture_output=True, timeout=timeout_s)
        return done.returncode == 0

    def _restart(self, pod: Pod, workload: Manifest) -> None:
        with pod.changing:
            if pod.leaving or self._closing.is_set():
                return
            pod.ready = False
            pod.restarts += 1
            pod.failures.clear()
            self._engine.docker("rm", "--force", pod.container)
            self._run(pod, workload)


@contextmanager
def node(
    engine: Engine, manifests: list[Manifest], folder: Path, *, images: Mapping[str, str], hurry: float
) -> Iterator[Node]:
    """Yield a node with everything on it for the block."""
    found = Node(engine, manifests, folder, images=images, hurry=hurry)
    try:
        found.open()
        yield found
    finally:
        found.close()


def _named(manifest: Manifest, wanted: str, name: str) -> bool:
    return manifest["kind"] == wanted and bool(manifest["metadata"]["name"] == name)


def _replicas(workload: Manifest, manifests: Iterable[Manifest]) -> int:
    name = workload["metadata"]["name"]
    scalers = [found for found in manifests if found["kind"] == "HorizontalPodAutoscaler"]
    least = [
        found["spec"]["minReplicas"] for found in scalers if found["spec"]["scaleTargetRef"]["name"] == name
    ]
    return int(workload["spec"].get("replicas", least[0] if least else 1))


def _limits(pod: Pod) -> list[str]:
    """Return the security contexts and limits as options of `docker run`."""
    own, whole = pod.main["securityContext"], pod.spec["securityContext"]
    found = ["--user", f"{whole['runAsUser']}:{whole['runAsGroup']}", "--group-add", str(whole["fsGroup"])]
    if own["readOnlyRootFilesystem"]:
        found.append("--read-only")
    if not own["allowPrivilegeEscalation"]:
        found += ["--security-opt", "no-new-privileges"]
    for capability in own["capabilities"]["drop"]:
        found += ["--cap-drop", capability]
    return [*found, "--memory", str(_bytes(pod.main["resources"]["limits"]["memory"]))]


def _bytes(text: str) -> int:
    return int(text[:-2]) * _UNITS[text[-2:]]
