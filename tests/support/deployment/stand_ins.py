"""Makes the stand-in images of `stand_ins/Dockerfile`: `python -m support.deployment.stand_ins`, as root.

They let the real compose.yaml run where no registry can be reached. Debian 13 has the same major versions of
Python, RabbitMQ, PostgreSQL, memcached; in Tempo's place, a program keeps the spans that it is sent. Grafana
and the memcached exporter have no stand-in and are left out, and `WITHOUT` says so.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from support.deployment.engine import CACHE, Engine, NoEngine, running

REPOSITORY = Path(__file__).resolve().parents[3]
DOCKERFILE = Path(__file__).with_name("stand_ins") / "Dockerfile"

# The stage of the Dockerfile for each name that compose.yaml or a build uses.
STAGES = {
    "python:3.13.7-slim": "python",
    "rabbitmq:4.1.4-management": "rabbitmq",
    "postgres:17.6": "postgres",
    "memcached:1.6.39": "memcached",
    "axllent/mailpit:v1.27.8": "mailpit",
    "prom/prometheus:v3.5.0": "prometheus",
    "prom/alertmanager:v0.28.1": "alertmanager",
    "prometheuscommunity/postgres-exporter:v0.17.1": "postgres-exporter",
    "caddy:2.10.2": "proxy",
    "grafana/tempo:2.8.2": "tempo",
}
WITHOUT = ("grafana", "memcached-exporter")

_BASES = {
    "base": "python3,python3-venv,python3-pip,ca-certificates",
    "servers": "rabbitmq-server,postgresql,memcached,prometheus,prometheus-alertmanager,"
    "prometheus-postgres-exporter,caddy,python3,ca-certificates",
}
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def build(engine: Engine) -> None:
    """Make and tag all stand-ins; the archives under them are kept for the next time."""
    for name, packages in _BASES.items():
        archive = CACHE / f"{name}.tar"
        if not archive.exists():
            _bootstrap(archive, packages)
        if not engine.docker("images", "--quiet", f"tickwire-stand-in/{name}").strip():
            engine.docker("import", str(archive), f"tickwire-stand-in/{name}", timeout_s=300)
    for image, stage in STAGES.items():
        command = ("build", "--quiet", "--file", str(DOCKERFILE), "--target", stage, "--tag", image)
        engine.docker(*command, str(REPOSITORY), timeout_s=300)
    engine.docker("image", "prune", "--force")


def _bootstrap(archive: Path, packages: str) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    draft = archive.with_name(f"new-{archive.name}")
    # This machine's authorities: behind a proxy of its own, pip inside a build would refuse the certificate.
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}"]
    command += [f"--customize-hook=upload {_BUNDLE} {_BUNDLE}", "trixie", str(draft)]
    run_whole(command, timeout_s=400)
    draft.replace(archive)


def run_whole(command: Sequence[str], *, timeout_s: float) -> None:
    """Run a program that has children of its own; none of them is left. Raise `NoEngine` if it fails."""
    # Its errors go to a file: whoever reads a pipe waits for the last child that holds it.
    with TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
        try:
            code: int | None = process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        end = said.read().decode(errors="replace")[-1000:]
    if code is None:
        raise NoEngine(f"{command[0]} has not ended after {timeout_s:.0f} s: {end}")
    if code:
        raise NoEngine(f"{command[0]} failed ({code}): {end}")


if __name__ == "__main__":
    with running() as found:
        if found.stand_ins:
            build(found)
        print(found.docker("images"))
