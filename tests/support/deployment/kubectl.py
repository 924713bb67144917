"""A stand-in for kubectl without a cluster: its calls are answered by a node of the test that runs.

`kubectl` on the path hands its words to `ControlPlane`, which is in the test's process, as the node is. It
knows the calls of `deploy/containers/upkeep` and of `deploy/upkeep/kubernetes_stack.py`, and refuses every
other one. Each kind of call is first read by the real kubectl, without a cluster; what that does not
understand is refused, too.
"""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from support.deployment import manifests
from support.deployment.composed import until
from support.deployment.engine import Engine
from support.deployment.kubelet import Node
from support.deployment.pods import Pod

_CLIENT = Path(__file__).with_name("kubectl_client.py")
_NAME = "app.kubernetes.io/name="
# Nobody listens there: what kubectl understands, it cannot do.
_NOWHERE = ("--server", "http://127.0.0.1:9", "--request-timeout", "2s")


@contextmanager
def on_path(node: Node, engine: Engine) -> Iterator[dict[str, str]]:
    """Yield the environment in which `kubectl` leads to the pods of `node`."""
    with TemporaryDirectory(prefix="tickwire-kubectl-") as folder:
        program, socket = Path(folder) / "kubectl", Path(folder) / "socket"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {_CLIENT} {socket} "$@"\n')
        program.chmod(0o755)
        with _Listener(str(socket), _Request) as listener:
            listener.answer = ControlPlane(node, engine).answer
            thread = threading.Thread(target=listener.serve_forever)
            thread.start()
            try:
                path = f"{folder}{os.pathsep}{engine.environment['PATH']}"
                yield {**engine.environment, "PATH": path}
            finally:
                listener.shutdown()
                thread.join()


class ControlPlane:
    """Does what calls of kubectl ask for, on one node.

    An answer is `{"code", "out", "err"}`, or `{"run"}`: a program that the caller becomes, so that its input
    and output are the program's.
    """

    def __init__(self, node: Node, engine: Engine) -> None:
        self._node = node
        self._engine = engine
        self._understood: set[str] = set()

    def answer(self, words: list[str], typed: str) -> dict[str, Any]:
        """Answer one call."""
        match words:
            case ["-n", "tickwire", *asked]:
                pass
            case _:
                return _failed(f"not in the namespace tickwire: {words}")
        if reason := self._misunderstood(asked, typed):
            return _failed(reason)
        for part in (self._show, self._change, self._wait):
            if (found := part(asked, typed)) is not None:
                return found
        return _failed(f"not a call that this stand-in knows: {asked}")

    def _show(self, words: list[str], _: str) -> dict[str, Any] | None:
        match words:
            case ["get", _, "-o", "wide"]:
                return _said("\n".join(pod.owner for pod in self._node.pods if not pod.ended))
            case ["get", "pods", "--selector", selector, "-o", "name"]:
                pods = self._node.of(selector.removeprefix(_NAME))
                return _said("".join(f"pod/{pod.name}\n" for pod in pods))
            case ["get", what, "--ignore-not-found", "-o", "name"]:
                return _said(f"{what}\n" if self._pods(what) else "")
            case ["get", what, "-o", "jsonpath={.status.readyReplicas}"]:
                ready = sum(pod.ready for pod in self._pods(what))
                return _said(str(ready or ""))
            case ["get", what, "-o", "json"]:
                return _said(json.dumps(self._node.workload(what.partition("/")[2])))
            case ["exec", "-i", target, "--", *command]:
                pod = self._pods(target)[0]
                return {"run": ["docker", "exec", "-i", pod.container, *command]}
            case ["logs", "--selector", selector, "--prefix", "--tail", lines]:
                pods = self._node.of(selector.removeprefix(_NAME))
                return _said("".join(self._logs(pod, lines) for pod in pods))
        return None

    def _change(self, words: list[str], typed: str) -> dict[str, Any] | None:
        match words:
            case ["apply", "-k", folder, "--selector", selector]:
                name, _, value = selector.partition("=")
                built = manifests.build(Path(folder))
                self._node.apply(
                    [found for found in built if found["metadata"].get("labels", {}).get(name) == value]
                )
            case ["rollout", "restart", what]:
                self._node.restart(what.removeprefix("deployment/"))
            case ["scale", replicas, what]:
                self._node.scale(what.removeprefix("deployment/"), int(replicas.removeprefix("--replicas=")))
            case ["create", "-f", "-"]:
                pod = json.loads(typed)
                manifests.check(pod)
                self._node.add({**pod, "spec": {"template": pod}})
            case ["delete", what, *_]:
                for pod in self._pods(what):
                    self._node.delete(pod)
            case _:
                return None
        return _said("")

    def _wait(self, words: list[str], _: str) -> dict[str, Any] | None:
        match words:
            case ["rollout", "status", what, timeout]:
                self._node.finish(what.partition("/")[2], timeout_s=_seconds(timeout))
            case ["wait", "--for=delete", *pods, timeout]:
                until(lambda: None if any(map(self._pods, pods)) else True, timeout_s=_seconds(timeout))
            case ["wait", "--for=condition=Ready", what, timeout]:
                until(
                    lambda: True if all(pod.ready for pod in self._pods(what)) else None,
                    timeout_s=_seconds(timeout),
                )
            case _:
                return None
        return _said("")

    def _pods(self, what: str) -> list[Pod]:
        """Return the pods of `kind/name`, those that stay first."""
        kind, _, name = what.partition("/")
        found = [pod for pod in self._node.pods if name == (pod.name if kind == "pod" else pod.owner)]
        return sorted(found, key=lambda pod: pod.leaving)

    def _logs(self, pod: Pod, lines: str) -> str:
        words = ["docker", "logs", "--tail", lines, pod.container]
        environment = self._engine.environment
        done = subprocess.run(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return done.stdout

    def _misunderstood(self, words: list[str], typed: str) -> str:
        """Return the real kubectl's errors about a call, except that there is no cluster."""
        shape = " ".join(words[:3])
        if shape in self._understood:
            return ""
        asked = [manifests.tool("kubectl"), *_NOWHERE, *words]
        done = subprocess.run(asked, input=typed, capture_output=True, text=True, timeout=30, check=False)
        if "connection refused" not in done.stderr:
            return f"kubectl {' '.join(words)}: {done.stderr}"
        self._understood.add(shape)
        return ""


class _Listener(socketserver.ThreadingUnixStreamServer):
    answer: Callable[[list[str], str], dict[str, Any]]
    daemon_threads = True


class _Request(socketserver.StreamRequestHandler):
    server: _Listener

    def handle(self) -> None:
        asked = json.loads(self.rfile.readline())
        try:
            found = self.server.answer(asked["words"], asked["typed"])
        except Exception as error:
            found = _failed(repr(error))
        self.wfile.write(json.dumps(found).encode() + b"\n")


def _said(text: str) -> dict[str, Any]:
    return {"code": 0, "out": text, "err": ""}


def _failed(reason: str) -> dict[str, Any]:
    return {"code": 2, "out": "", "err": reason + "\n"}


def _seconds(timeout: str) -> float:
    return float(timeout.removeprefix("--timeout=").removesuffix("s"))
