"""The stack on a small cluster (`make k8s-local`), as the commands use it: everything goes through `kubectl`.

Its servers are StatefulSets, and its Secrets are made from files, so both can be changed from here. Where
operators run the servers and a secret store holds the secrets, k8s/README.md says what to do.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from containers import make_secrets, published
from native import settings
from upkeep.commands import CommandLine
from upkeep.errors import UpkeepError
from upkeep.installation import SERVICES
from upkeep.secret_files import SecretFiles

_PYTHON = "/opt/tickwire/bin/python"
_NAME = "app.kubernetes.io/name"
_READY_S = 180
# A pod leaves within its grace period of 45 s.
_GONE_S = 90
# A pod of the gateway's image in which nothing of the gateway runs.
_WORKBENCH = "upkeep"
_WAITING = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit()); signal.pause()"
_ASK = Path(__file__).with_name("gateway_request.py")
# `kubectl exec` hands on no environment, and the arguments of processes can be read by others.
_LOGIN = 'IFS= read -r PGPASSWORD; export PGPASSWORD; exec psql "$@"'


@dataclass(frozen=True)
class Kubectl:
    """Calls of `kubectl` in a context and a namespace."""

    environment: Mapping[str, str]

    def __call__(self, *arguments: str, typed: str = "") -> CommandLine:
        """Return a command that calls `kubectl`."""
        context = self.environment.get("KUBE_CONTEXT")
        chosen = ("--context", context) if context else ()
        namespace = self.environment.get("KUBE_NAMESPACE") or "tickwire"
        return CommandLine(("kubectl", *chosen, "-n", namespace, *arguments), self.environment, typed)

    def has(self, what: str) -> bool:
        """Return whether the cluster has an object, `kind/name`. Raise `UpkeepError` without an answer."""
        return bool(self("get", what, "--ignore-not-found", "-o", "name").run().strip())


@dataclass(frozen=True)
class KubernetesStack:
    """The stack of the overlay in `overlay`, whose Secrets are made from the files in `files`."""

    kubectl: Kubectl
    overlay: Path
    files: SecretFiles
    backups: Path

    kind = "Kubernetes"

    @property
    def gateway_url(self) -> str:
        """The address that `make k8s-local` forwards to the gateway."""
        return f"http://127.0.0.1:{self.kubectl.environment.get('GATEWAY_PORT', '8080')}"

    @property
    def mailbox_url(self) -> str:
        """The address that `make k8s-local` forwards to the mailbox."""
        return f"http://127.0.0.1:{self.kubectl.environment.get('MAILPIT_PORT', '8025')}"

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of PostgreSQL that have a password."""
        return (*make_secrets.ROLES.values(), "postgres", "metrics")

    @property
    def is_running(self) -> bool:
        """Whether a gateway is ready."""
        ready = ("get", "deployment/gateway", "-o", "jsonpath={.status.readyReplicas}")
        found = self.kubectl(*ready).attempt()
        return found.returncode == 0 and found.stdout.strip() not in ("", "0")

    @property
    def broker_url(self) -> str:
        """The broker's address inside the cluster, with the login of the administrator."""
        return (
            f"amqp://{make_secrets.ADMIN}:{self.secret('rabbitmq-admin')}@rabbitmq:5672/{make_secrets.VHOST}"
        )

    @property
    def key_file(self) -> Path:
        """The file of the administrator's API key."""
        return self.files.key_file

    def secret(self, name: str) -> str:
        """Return a secret, or an empty text when there is none."""
        return self.files.read(name)

    def put(self, secrets: Mapping[str, str]) -> None:
        """Store secrets, and apply the Secrets that are made of them, together; nothing else."""
        self.files.write(secrets)
        only = ("--selector", "app.kubernetes.io/component=secrets")
        self.kubectl("apply", "-k", str(self.overlay), *only).run()

    def set_by_hand(self, name: str) -> str | None:
        """Return None: a cluster reads its Secrets only."""

    def changed_at(self, name: str) -> float:
        """Return when a secret was last written, in seconds since 1970; 0 if it never was."""
        return self.files.changed_at(name)

    def ask(self, path: str, *, key: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Return status and JSON of a gateway's answer to a GET, or to a POST with `body`.

        It is asked inside its pod: a forwarded port ends with the pod behind it.
        """
        asked = json.dumps({"path": path, "key": key, "body": body})
        status, answer = json.loads(self.gateway_program("-c", _ASK.read_text(encoding="utf-8")).run(asked))
        return status, answer

    def restart(self, service: str) -> None:
        """Replace the pods of a service, and return when the new ones are ready and the old ones gone."""
        if not self.kubectl.has(f"deployment/{service}"):
            # An exporter of a component that is left out.
            return
        before = self._pods(service)
        self.kubectl("rollout", "restart", f"deployment/{service}").run()
        self._rolled_out(f"deployment/{service}")
        if before:
            self._gone(*before)

    def exec(self, target: str, *words: str, typed: str = "") -> CommandLine:
        """Return a command that runs a program in a pod of `target`, `kind/name`."""
        return self.kubectl("exec", "-i", target, "--", *words, typed=typed)

    def postgres(self, program: str, *arguments: str, database: str) -> CommandLine:
        """Return a command that runs a PostgreSQL program inside the server's pod, as the superuser."""
        login = ("--username=postgres", f"--dbname={database}")
        return self.exec("statefulset/postgres", program, *login, *arguments)

    def login(self, role: str, password: str) -> CommandLine:
        """Return a command that fails unless `role` can log in with `password`."""
        database = "postgres" if role == "metrics" else role
        login = ("--no-psqlrc", "--host=127.0.0.1", f"--username={role}", f"--dbname={database}")
        words = ("sh", "-c", _LOGIN, "psql", *login, "--command=SELECT 1")
        return self.exec("statefulset/postgres", *words, typed=password + "\n")

    def rabbitmqctl(self, *arguments: str) -> CommandLine:
        """Return a command that calls `rabbitmqctl` inside the broker's pod."""
        return self.exec("statefulset/rabbitmq", "rabbitmqctl", *arguments)

    def gateway_program(self, *words: str) -> CommandLine:
        """Return a command that runs Python with the gateway's settings."""
        return self.exec("deployment/gateway", _PYTHON, *words)

    def python(self, source: str) -> CommandLine:
        """Return a command that runs Python in a pod of the gateway's image."""
        if self.kubectl.has(f"pod/{_WORKBENCH}"):
            return self.exec(f"pod/{_WORKBENCH}", _PYTHON, "-c", source)
        return self.gateway_program("-c", source)

    @contextmanager
    def servers_only(self) -> Iterator[None]:
        """Scale the services to none for the length of the block; afterwards to what they were before."""
        for server in ("postgres", "rabbitmq"):
            self._rolled_out(f"statefulset/{server}")
        found = {
            service: json.loads(self.kubectl("get", f"deployment/{service}", "-o", "json").run())
            for service in SERVICES
        }
        bench = _workbench(found["gateway"]["spec"]["template"])
        self.kubectl("delete", f"pod/{_WORKBENCH}", "--ignore-not-found").run()
        self.kubectl("create", "-f", "-").run(json.dumps(bench))
        try:
            self._ready(f"pod/{_WORKBENCH}")
            leaving = [pod for service in SERVICES for pod in self._pods(service)]
            for service in SERVICES:
                self.kubectl("scale", "--replicas=0", f"deployment/{service}").run()
            if leaving:
                self._gone(*leaving)
            yield
        finally:
            self.kubectl("delete", f"pod/{_WORKBENCH}").run()
        for service, deployment in found.items():
            # None are left where an earlier restore did not come to its end.
            replicas = max(1, deployment["spec"]["replicas"])
            self.kubectl("scale", f"--replicas={replicas}", f"deployment/{service}").run()
        for service in SERVICES:
            self._rolled_out(f"deployment/{service}")

    def settings(self) -> Mapping[str, Mapping[str, str]]:
        """Return the environment variables of each service; secrets are in files."""
        source = "import json, os; print(json.dumps(dict(os.environ)))"
        return {
            service: json.loads(self.exec(f"deployment/{service}", _PYTHON, "-c", source).run())
            for service in SERVICES
        }

    def _pods(self, service: str) -> list[str]:
        return self.kubectl("get", "pods", "--selector", f"{_NAME}={service}", "-o", "name").run().split()

    def _rolled_out(self, what: str) -> None:
        self.kubectl("rollout", "status", what, f"--timeout={_READY_S}s").run(timeout_s=_READY_S + 10)

    def _ready(self, what: str) -> None:
        wanted = ("wait", "--for=condition=Ready", what, f"--timeout={_READY_S}s")
        self.kubectl(*wanted).run(timeout_s=_READY_S + 10)

    def _gone(self, *pods: str) -> None:
        self.kubectl("wait", "--for=delete", *pods, f"--timeout={_GONE_S}s").run(timeout_s=_GONE_S + 10)


def at(repository: Path, environment: Mapping[str, str]) -> KubernetesStack:
    """Return the stack on the cluster. Raise `UpkeepError` where it cannot be changed from here."""
    if shutil.which("kubectl", path=environment.get("PATH")) is None:
        raise UpkeepError("kubectl is missing: install it first.")
    variables = settings.given(environment, repository / ".env")
    # As `make k8s-local` forwards them.
    ports = {name: str(number) for name, number in published.chosen(variables).items()}
    places = {name: text for name, text in variables.items() if name in ("KUBE_CONTEXT", "KUBE_NAMESPACE")}
    kubectl = Kubectl({**environment, **ports, **places})
    if not kubectl.has("statefulset/postgres"):
        raise UpkeepError(
            "This cluster has no StatefulSet postgres: servers that operators run, or that are elsewhere, "
            "have passwords and backups of their own. k8s/README.md says what to do for each secret, and how "
            "to back up and restore."
        )
    overlay = repository / (variables.get("KUBE_OVERLAY") or "k8s/overlays/local")
    mounted = overlay / "secrets/gateway/api-key"
    if not mounted.exists():
        raise UpkeepError(
            f"{mounted} is missing: run this in the checkout that `make k8s-local` was run in; "
            "the Secrets of the cluster are made from its files."
        )
    # Another stack may have its key in the usual place.
    key_files = (repository / ".run/api-key", overlay / "secrets/api-key")
    same = (file for file in key_files if file.exists() and file.read_text() == mounted.read_text())
    files = SecretFiles(overlay / "secrets", next(same, mounted))
    return KubernetesStack(kubectl, overlay, files, repository / "backups")


def _workbench(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pod with the image, files and restrictions of the gateway's, which only waits."""
    (gateway,) = template["spec"]["containers"]
    dropped = ("ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle")
    container = {name: value for name, value in gateway.items() if name not in dropped}
    container["command"] = [_PYTHON, "-c", _WAITING]
    spec = {name: value for name, value in template["spec"].items() if name != "topologySpreadConstraints"}
    # The network policies let services reach the broker; no Service leads here.
    labels = {_NAME: _WORKBENCH, "app.kubernetes.io/component": "service"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": _WORKBENCH, "labels": labels},
        "spec": {**spec, "containers": [container], "terminationGracePeriodSeconds": 5},
    }
