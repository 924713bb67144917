"""A stand-in for kubectl without a cluster: requests about pods are answered by the containers of a node.

It knows the calls of `deploy/containers/upkeep` and refuses every other one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from deploy.kubelet import Node

_PODS = "TICKWIRE_TEST_PODS"


@contextmanager
def on_path(node: Node, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Yield the environment in which `kubectl` leads to the pods of `node`."""
    with TemporaryDirectory(prefix="tickwire-kubectl-") as folder:
        program = Path(folder) / "kubectl"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
        program.chmod(0o755)
        pods = " ".join(f"{pod.owner}={pod.container}" for pod in node.pods if not pod.ended)
        path = f"{folder}{os.pathsep}{environment['PATH']}"
        yield {**environment, "PATH": path, "PYTHONPATH": str(Path(__file__).parents[1]), _PODS: pods}


def main(words: list[str]) -> int:
    """Run the command; return its exit code."""
    pods = [tuple(entry.split("=")) for entry in os.environ[_PODS].split()]
    match words:
        case ["-n", "tickwire", "get", _, "-o", "wide"]:
            print("\n".join(owner for owner, _ in pods))
            return 0
        case ["-n", "tickwire", "exec", "-i", target, "--", *command]:
            (container, *_) = [found for owner, found in pods if f"deployment/{owner}" == target]
            return subprocess.call(["docker", "exec", "-i", container, *command])
        case ["-n", "tickwire", "logs", "--selector", selector, "--prefix", "--tail", lines]:
            name = selector.removeprefix("app.kubernetes.io/name=")
            return max(
                [
                    subprocess.call(["docker", "logs", "--tail", lines, found], stderr=subprocess.STDOUT)
                    for owner, found in pods
                    if owner == name
                ],
                default=0,
            )
        case _:
            print(f"not a call that this stand-in knows: {words}", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
