"""The steps of `make k8s-local` in their order, with programs that only record how they were called."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
# Forwarding goes on until it is told to stop; everything else is done at once.
NOTING = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$*" in
    *current-context*) echo "$CONTEXT" ;;
    *cluster-info*) exit "${DOWN:-0}" ;;
    *"get jobs"*) echo "${ENDED:-Complete Complete SuccessCriteriaMet Complete}" ;;
    *" logs "*) echo "$LOGS" ;;
esac
"""


class LocalGateway(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        is_known = self.path != "/v1/me" or "tw_live_" in self.headers["authorization"]
        self.send_response(200 if is_known else 401)
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"path": "/console/login#tw_login_abc"}')

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), LocalGateway) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def call(folder: Path, context: str, **variables: str) -> tuple[int, str, list[str]]:
    """Return exit code, output, and how the programs were called."""
    for part in ("card", "containers", "rabbitmq"):
        shutil.copytree(REPOSITORY / "deploy" / part, folder / "deploy" / part, dirs_exist_ok=True)
    (folder / ".run").mkdir(exist_ok=True)
    (folder / "k8s/overlays/local").mkdir(parents=True, exist_ok=True)
    programs = folder / "programs"
    programs.mkdir()
    for name in ("docker", "kubectl", "kind", "minikube"):
        (programs / name).write_text(NOTING)
        (programs / name).chmod(0o755)
    calls = folder / "calls"
    calls.touch()
    path = f"{programs}:{os.environ['PATH']}"
    done = subprocess.run(
        [folder / "deploy/containers/k8s-local"],
        env={**os.environ, "PATH": path, "CALLS": str(calls), "CONTEXT": context, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr, calls.read_text().splitlines()


def test_images_are_built_and_loaded_before_anything_is_applied(tmp_path: Path, port: int) -> None:
    code, said, calls = call(tmp_path, "kind-home", GATEWAY_PORT=str(port))
    assert code == 0, said
    steps = [line for line in calls if "port-forward" not in line and "config" not in line]
    assert steps[1] == "docker compose build gateway stock-data email batch-processor"
    assert steps[2] == "kind load docker-image --name home localhost/tickwire/gateway:0.1.0"
    applied = [line for line in steps if " apply " in line]
    assert applied[1].startswith("kubectl apply -k k8s/checks/local --selector ")
    assert applied[2] == "kubectl apply -k k8s/overlays/local"
    assert steps.index(applied[0]) == 6
    assert "rollout status statefulset" in steps[-2]
    assert steps[-1].endswith("deployment --all")
    key = (tmp_path / ".run/api-key").read_text()
    assert (tmp_path / "k8s/overlays/local/secrets/gateway/api-key").read_text() == key
    assert f"API key       {key}" in said
    assert "(also in .run/api-key)" in said
    assert f"http://127.0.0.1:{port}/console/login#tw_login_abc\n" in said
    assert f"for another one: make login ARGS=--url=http://127.0.0.1:{port})" in said


def test_wrong_settings_are_told_before_the_overlay_is_applied(tmp_path: Path) -> None:
    told = "[pod/check-email] EMAIL_SMTP_TLS: must be 'required'"
    ended = "Complete FailureTarget Complete Failed"
    code, said, calls = call(tmp_path, "kind-home", ENDED=ended, LOGS=told)
    assert (code, told in said, "nothing was changed" in said) == (2, True, True)
    assert "kubectl apply -k k8s/overlays/local" not in calls


def test_a_cluster_that_does_not_answer_is_reported_before_anything_is_built(tmp_path: Path) -> None:
    code, said, calls = call(tmp_path, "minikube", DOWN="1")
    assert (code, "The cluster minikube does not answer" in said) == (1, True)
    assert not [line for line in calls if line.startswith("docker")]


def test_a_cluster_of_an_unknown_kind_asks_how_to_load(tmp_path: Path) -> None:
    code, said, calls = call(tmp_path, "somewhere")
    assert (code, "LOAD=" in said) == (1, True)
    assert not [line for line in calls if "apply" in line]
