"""Makes the stand-in images of `stand_ins/Dockerfile`: `python -m support.deployment.stand_ins`, as root.

They let the real compose.yaml run where no registry can be reached. Debian 13 has the same major versions of
Python, RabbitMQ, PostgreSQL, memcached; what it has not (Grafana, the memcached exporter, Tempo) has no
stand-in and is left out, and `WITHOUT` says so.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

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
}
WITHOUT = ("grafana", "memcached-exporter", "tempo")

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
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=400)
    except (subprocess.SubprocessError, OSError) as error:
        raise NoEngine(f"mmdebstrap could not make {archive.name}: {error}") from error
    draft.replace(archive)


if __name__ == "__main__":
    with running() as found:
        if found.stand_ins:
            build(found)
        print(found.docker("images"))
