"""A support bundle: the information needed for support, without secrets."""

from __future__ import annotations

import json
import platform
import subprocess
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any

from chassis import inspecting, redaction
from upkeep import rotation
from upkeep.errors import UpkeepError
from upkeep.installation import DATABASES, SERVICES, query
from upkeep.native_stack import NativeStack

_LINES = 8000
_QUEUES = ("--vhost", "tickwire", "name", "messages", "messages_unacknowledged", "consumers")
_SERVERS = ("postgres", "rabbitmq", "prometheus")


def bundle(installation: NativeStack, folder: Path, *, dotenv: Mapping[str, str], repository: Path) -> Path:
    """Write a bundle into `folder`, with every text redacted, and return its path."""
    redaction.remember(_secrets(installation))
    settings = {
        name: inspecting.describe(
            inspecting.model_of(DATABASES[name]), installation.settings()[name], dotenv=dotenv
        )
        for name in SERVICES
    }
    logs = {name: installation.log(name, _LINES).splitlines() for name in (*SERVICES, *_SERVERS)}
    texts = {
        "versions.json": json.dumps(_versions(installation, repository), indent=1),
        "settings.json": json.dumps(settings, indent=1),
        "readiness.txt": "\n".join(f"{name}: {installation.readiness(name)}" for name in SERVICES),
        "queues.txt": _tried(lambda: installation.rabbitmqctl("--quiet", "list_queues", *_QUEUES).run()),
        "database.txt": _tried(lambda: _tables(installation)),
        "alerts.json": _tried(
            lambda: json.dumps(
                installation.ask("/v1/admin/status", key=installation.secret("api-key"))[1],
                indent=1,
            )
        ),
        **{f"errors/{name}.log": "\n".join(inspecting.bad_lines(lines)) for name, lines in logs.items()},
    }
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = folder / f"tickwire-support-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar.gz"
    with tarfile.open(target, "w:gz") as made:
        for name, text in texts.items():
            content = redaction.text(text).encode()
            about = tarfile.TarInfo(f"tickwire-support/{name}")
            about.size = len(content)
            made.addfile(about, BytesIO(content))
    target.chmod(0o600)
    return target


def _secrets(installation: NativeStack) -> set[str]:
    names = ["api-key", "pepper", "previous-pepper", "next-pepper", "next-postgres-password"]
    names += rotation.OF_OTHERS
    names += ["email-secrets-key", "email-previous-secrets-key"]
    names += [f"postgres-{role}" for role in installation.roles]
    names += [f"rabbitmq-{user}" for user in (*SERVICES, "admin")]
    found = {installation.secret(name) for name in names}
    for given in installation.settings().values():
        found |= inspecting.secret_values(given)
    return found - {""}


def _versions(installation: NativeStack, repository: Path) -> dict[str, Any]:
    git = ["git", "-C", str(repository), "describe", "--always", "--dirty"]
    revision = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "runs as": installation.kind,
        "revision": revision or "unknown",
        "machine": platform.platform(),
        "python": platform.python_version(),
        "postgresql": _tried(lambda: query(installation, "postgres", "SHOW server_version;")),
        "rabbitmq": _tried(lambda: installation.rabbitmqctl("--quiet", "version").run().strip()),
        "packages": {one.metadata["Name"]: one.version for one in metadata.distributions()},
    }


def _tables(installation: NativeStack) -> str:
    statement = (
        "SELECT relname, n_live_tup, n_dead_tup, pg_size_pretty(pg_total_relation_size(relid)) "
        "FROM pg_stat_user_tables ORDER BY pg_total_relation_size(relid) DESC;"
    )
    return "\n\n".join(f"{name}\n{query(installation, name, statement)}" for name in DATABASES.values())


def _tried(ask: Any) -> str:
    try:
        return str(ask())
    except (UpkeepError, OSError, subprocess.SubprocessError) as error:
        return f"unavailable: {error}"
