"""The node of the tests of pods: whatever is under way when it closes, nothing of it is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.deployment.engine import Engine
from support.deployment.kubelet import Node

pytestmark = [pytest.mark.docker, pytest.mark.timeout(480)]

CONTAINER = {
    "name": "waits",
    "image": "python:3.13.7-slim",
    "command": ["python3", "-c", "import signal; signal.pause()"],
    "securityContext": {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    },
    "resources": {"limits": {"memory": "64Mi"}},
}
POD = {
    "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
    # As process 1, it does not end on SIGTERM.
    "terminationGracePeriodSeconds": 1,
    "containers": [CONTAINER],
}
DEPLOYMENT: dict[str, Any] = {
    "kind": "Deployment",
    "metadata": {"name": "waits"},
    "spec": {"replicas": 3, "template": {"metadata": {"labels": {}}, "spec": POD}},
}


@pytest.fixture
def node(engine: Engine, tmp_path: Path) -> Node:
    found = Node(engine, [DEPLOYMENT], tmp_path, images={}, hurry=10)
    found.open()
    found.wait(timeout_s=60)
    return found


def test_a_node_that_closes_while_its_pods_are_replaced_leaves_nothing(engine: Engine, node: Node) -> None:
    node.restart("waits")
    node.close()
    assert engine.docker("ps", "--all", "--quiet", "--filter", f"network={node.network}") == ""
    assert engine.docker("network", "ls", "--quiet", "--filter", f"name={node.network}") == ""
