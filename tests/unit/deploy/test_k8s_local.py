"""The steps of `make k8s-local` in their order, with programs that only record how they were called."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

from native.ports import HOST, free_ports

REPOSITORY = Path(__file__).resolve().parents[3]
# What is forwarded answers until the card is made; everything else is done at once.
NOTING = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$*" in
    *current-context*) echo "$CONTEXT" ;;
    *cluster-info*) exit "${DOWN:-0}" ;;
    *"get jobs"*) echo "${ENDED:-Complete Complete SuccessCriteriaMet Complete}" ;;
    *" logs "*) echo "$LOGS" ;;
    "compose build"*) echo "$TICKWIRE_REGISTRY $TICKWIRE_TAG" >"$CALLS.images" ;;
    *port-forward*service/gateway*) exec python3 "$GATEWAY" "$GATEWAY_PORT" ;;
esac
"""
GATEWAY = """
import http.server, sys

class Gateway(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        is_known = self.path != "/v1/me" or "tw_live_" in self.headers["authorization"]
        self.send_response(200 if is_known else 401)
        self.end_headers()

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"path": "/console/login#tw_login_abc"}')

# The key, the login, the reference, the status page.
with http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Gateway) as server:
    for _ in range(4):
        server.handle_request()
"""


def call(folder: Path, context: str, **variables: str) -> tuple[int, str, list[str]]:
    """Return exit code, output, and how the programs were called."""
    for part in ("card", "containers", "native", "rabbitmq"):
        shutil.copytree(REPOSITORY / "deploy" / part, folder / "deploy" / part, dirs_exist_ok=True)
    shutil.copy(REPOSITORY / ".env.example", folder)
    (folder / ".run").mkdir(exist_ok=True)
    (folder / "k8s/overlays/local").mkdir(parents=True, exist_ok=True)
    programs = folder / "programs"
    programs.mkdir()
    for name in ("docker", "kubectl", "kind", "minikube"):
        (programs / name).write_text(NOTING)
        (programs / name).chmod(0o755)
    calls, gateway = folder / "calls", folder / "gateway.py"
    calls.touch()
    gateway.write_text(GATEWAY)
    published, mailbox = map(str, free_ports(2))
    usual = {"GATEWAY": str(gateway)}
    if not (folder / ".env").exists():
        usual |= {"GATEWAY_PORT": published, "MAILPIT_PORT": mailbox}
    path = f"{programs}:{os.environ['PATH']}"
    done = subprocess.run(
        [folder / "deploy/containers/k8s-local"],
        env={**os.environ, "PATH": path, "CALLS": str(calls), "CONTEXT": context, **usual, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr, calls.read_text().splitlines()


def test_images_are_built_and_loaded_before_anything_is_applied(tmp_path: Path) -> None:
    (port,) = free_ports(1)
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


def test_the_file_moves_the_forwarded_ports_and_names_the_cluster_but_not_the_images(tmp_path: Path) -> None:
    port, mailbox = free_ports(2)
    ports = f"GATEWAY_PORT={port}\nMAILPIT_PORT={mailbox}\n"
    images = "TICKWIRE_TAG=1.2\nTICKWIRE_REGISTRY=example.com/t\n"
    (tmp_path / ".env").write_text(f"{ports}{images}KUBE_CONTEXT='kind-home'\n")
    code, said, calls = call(tmp_path, "kind-work")
    assert code == 0, said
    assert f"http://127.0.0.1:{port}/console/login#tw_login_abc\n" in said
    forward = f"kubectl --context kind-home -n tickwire port-forward service/mailpit {mailbox}:8025"
    assert forward in calls
    # compose reads the file, and the overlay does not.
    assert (tmp_path / "calls.images").read_text() == "localhost/tickwire 0.1.0\n"
    assert "kind load docker-image --name home localhost/tickwire/gateway:0.1.0" in calls


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


def test_a_busy_port_is_named_before_anything_is_built(tmp_path: Path) -> None:
    # Another stack at the forwarded port would be taken for the cluster's.
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        code, said, calls = call(tmp_path, "kind-home", GATEWAY_PORT=str(port))
    assert (code, f"Port {port} for gateway is taken" in said) == (2, True)
    assert "make k8s-local GATEWAY_PORT=" in said
    assert not [line for line in calls if line.startswith("docker")]


def test_a_cluster_of_an_unknown_kind_asks_how_to_load(tmp_path: Path) -> None:
    code, said, calls = call(tmp_path, "somewhere")
    assert (code, "LOAD=" in said) == (1, True)
    assert not [line for line in calls if "apply" in line]
