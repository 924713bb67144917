"""Makes every secret of a stack in containers, as files: `make-secrets [folder] [--key-file file]`.

Existing secrets are kept, so a second call changes nothing. Compose mounts a folder for each container, and
kustomize makes Secrets from their files (`k8s/README.md`). In a mounted folder, unlike a mounted file,
replaced files are visible: after `make rotate`, the next start of a process reads the new secret. This runs
on a server that has only Python, and as the job `secrets` of compose.yaml, hence only the standard library
is used.

| file | what it holds |
|---|---|
| `gateway-key-pepper` | the secret that API keys are hashed with |
| `gateway-previous-key-pepper` | during a rotation the next one, then the previous one; empty otherwise |
| `gateway-next-key-pepper` | of `make rotate`: the next pepper until all gateways hash with it, then empty |
| `email-secrets-key` | the secret that DKIM keys are encrypted with |
| `email-previous-secrets-key` | the previous one during a rotation; empty otherwise |
| `postgres-password-<role>` | one per service, `postgres` (superuser) and `metrics` (reads statistics) |
| `next-postgres-password` | of `make rotate`: the superuser's next password until it is in force |
| `rabbitmq-password-<user>` | one per service, and `admin` for people |
| `grafana-password` | of Grafana's `admin` |
| `smtp-password`, `alpaca-secret-key` | passwords of other systems: empty, for you to fill in |
| the key file (`api-key`) | the first administrator's API key |
| `<container>/…` | the files of a container, rewritten from those above: addresses, passwords, users |

A set variable (`EMAIL_SMTP_PASSWORD` and the others in `FROM_VARIABLES`) replaces the content of its file.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import secrets
import string
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFINITIONS = Path(__file__).resolve().parents[1] / "rabbitmq" / "definitions.json"
ROLES = {
    "gateway": "gateway",
    "stock-data": "stock_data",
    "email": "emailer",
    "batch-processor": "batch_processor",
}
# For the SMTP relay and the data provider; empty until they are needed.
OF_OTHERS = ("smtp-password", "alpaca-secret-key")
FROM_VARIABLES = {
    "GATEWAY_KEY_PEPPER": "gateway-key-pepper",
    "GATEWAY_PREVIOUS_KEY_PEPPER": "gateway-previous-key-pepper",
    "EMAIL_SECRETS_KEY": "email-secrets-key",
    "EMAIL_PREVIOUS_SECRETS_KEY": "email-previous-secrets-key",
    "EMAIL_SMTP_PASSWORD": "smtp-password",
    "STOCK_DATA_ALPACA_SECRET_KEY": "alpaca-secret-key",
}
VHOST = "tickwire"
ADMIN = "admin"


@dataclass(frozen=True)
class SecretFolder:
    """A folder with one secret per file; only its owner may enter it."""

    path: Path

    def write(self, name: str, text: str) -> None:
        """Write `text` atomically, readable by the users inside the containers."""
        place = self.path / name
        place.parent.mkdir(mode=0o755, exist_ok=True)
        draft = place.with_name(f".{place.name}.new")
        draft.write_text(text, encoding="utf-8")
        # The folder keeps other users out; a container reads its files as a user unknown to the host.
        draft.chmod(0o444)
        draft.replace(place)

    def kept(self, name: str, text: str) -> str:
        """Return the secret `name`; when there is none, store `text` first."""
        file = self.path / name
        if not file.exists():
            self.write(name, text)
        return file.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Servers:
    """The addresses of the servers; with `tls`, their certificates are verified with the system's CAs."""

    postgres: str = "postgres:5432"
    rabbitmq: str = "rabbitmq:5672"
    tls: bool = False

    def dsn(self, role: str, password: str) -> str:
        """Return the URL of a role's database."""
        options = "?sslmode=verify-full" if self.tls else ""
        return f"postgresql://{role}:{password}@{self.postgres}/{role}{options}"

    def url(self, user: str, password: str) -> str:
        """Return the broker's URL for a user."""
        return f"amqp{'s' if self.tls else ''}://{user}:{password}@{self.rabbitmq}/{VHOST}"


def make(
    folder: Path, key_file: Path, variables: Mapping[str, str], *, servers: Servers | None = None
) -> None:
    """Make missing secrets in `folder`, the API key in `key_file`, and rewrite the containers' files."""
    servers = servers or Servers()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    kept = SecretFolder(folder)
    for variable, name in FROM_VARIABLES.items():
        if variables.get(variable):
            kept.write(name, variables[variable])
    api_key = _kept_key(folder, key_file, variables.get("GATEWAY_BOOTSTRAP_KEY"))
    pepper = kept.kept("gateway-key-pepper", secrets.token_urlsafe(32))
    previous = kept.kept("gateway-previous-key-pepper", "")
    kept.write("grafana/grafana-password", kept.kept("grafana-password", secrets.token_urlsafe(18)))
    others = {name: kept.kept(name, "") for name in OF_OTHERS}
    for name in OF_OTHERS:
        # Writable, for people to fill in.
        (folder / name).chmod(0o644)
    roles = {
        role: kept.kept(f"postgres-password-{role}", secrets.token_urlsafe(24))
        for role in (*ROLES.values(), "postgres", "metrics")
    }
    users = {
        user: kept.kept(f"rabbitmq-password-{user}", secrets.token_urlsafe(24)) for user in (*ROLES, ADMIN)
    }
    for service, role in ROLES.items():
        kept.write(f"{service}/postgres-dsn", servers.dsn(role, roles[role]))
        kept.write(f"{service}/rabbitmq-url", servers.url(service, users[service]))
    for role, password in roles.items():
        kept.write(f"postgres/postgres-password-{role}", password)
    kept.write("postgres-exporter/postgres-password-metrics", roles["metrics"])
    # For an existing server: `psql -f`.
    kept.write("postgres/roles.sql", "".join(_role(role, roles[role]) for role in ROLES.values()))
    kept.write("gateway/api-key", api_key)
    # In this order, a gateway that starts between the two knows the pepper that keys are stored with.
    kept.write("gateway/gateway-previous-key-pepper", previous)
    kept.write("gateway/gateway-key-pepper", pepper)
    kept.write("email/smtp-password", others["smtp-password"])
    kept.write("email/email-secrets-key", kept.kept("email-secrets-key", secrets.token_urlsafe(32)))
    kept.write("email/email-previous-secrets-key", kept.kept("email-previous-secrets-key", ""))
    kept.write("stock-data/alpaca-secret-key", others["alpaca-secret-key"])
    definitions = with_users(json.loads(DEFINITIONS.read_text(encoding="utf-8")), users)
    kept.write("rabbitmq/rabbitmq-definitions.json", json.dumps(definitions, indent=1))
    # The proxy keeps its certificates there, as its own user; other users cannot enter the outer folder.
    (folder / "proxy").mkdir(exist_ok=True)
    (folder / "proxy").chmod(0o777)


def _role(role: str, password: str) -> str:
    return (
        f"CREATE ROLE {role} LOGIN PASSWORD '{password}';\n"
        f"CREATE DATABASE {role} OWNER {role};\n"
        f"REVOKE ALL ON DATABASE {role} FROM PUBLIC;\n"
    )


def _kept_key(folder: Path, key_file: Path, given: str | None) -> str:
    """Return the given API key, else that of `key_file`, else that of an earlier release, else a new one."""
    earlier = folder / "api-key"
    found = given or next((f.read_text(encoding="utf-8") for f in (key_file, earlier) if f.exists()), "")
    key = found.strip() or new_api_key()
    if not key_file.exists() or key_file.read_text(encoding="utf-8").strip() != key:
        draft = key_file.with_name(f".{key_file.name}.new")
        draft.touch(mode=0o600)
        draft.write_text(key, encoding="utf-8")
        draft.replace(key_file)
    return key


def hand_over(folder: Path, key_file: Path) -> None:
    """Change the owner of files made by root to that of this repository: the job runs as root."""
    if os.geteuid() != 0:
        return
    owner = Path(__file__).stat()
    made = [
        folder,
        key_file,
        *(path for path in folder.rglob("*") if path.parts[len(folder.parts)] != "proxy"),
    ]
    if {*key_file.parent.iterdir()} <= {folder, key_file, key_file.parent / "compose-secrets"}:
        # It was created just now, only for the key file.
        made.append(key_file.parent)
    for path in made:
        os.chown(path, owner.st_uid, owner.st_gid)


def with_users(definitions: dict[str, Any], passwords: dict[str, str]) -> dict[str, Any]:
    """Return `definitions` with these users; they define each service's permissions, `admin` has all."""
    everything = {"user": ADMIN, "vhost": VHOST, "configure": ".*", "write": ".*", "read": ".*"}
    return {
        **definitions,
        "users": [user(name, password) for name, password in passwords.items()],
        "permissions": [*definitions["permissions"], everything],
    }


def user(name: str, password: str) -> dict[str, Any]:
    """Return a user as RabbitMQ imports it: salted SHA-256; the salt is derived, so the hash is stable."""
    salt = hashlib.sha256(f"{name}:{password}".encode()).digest()[:4]
    digest = hashlib.sha256(salt + password.encode()).digest()
    return {
        "name": name,
        "password_hash": base64.b64encode(salt + digest).decode(),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": ["administrator"] if name == ADMIN else [],
    }


def new_api_key() -> str:
    """Return a new API key: `tw_live_<16 hex digits>_<43 random digits><checksum of all before>`."""
    text = f"tw_live_{secrets.token_hex(8)}_{base62(secrets.randbits(256), 43)}"
    return text + base62(zlib.crc32(text.encode()), 6)


def base62(number: int, digits: int) -> str:
    """Return `number` in that many digits of 0-9, A-Z, a-z."""
    found = ""
    for _ in range(digits):
        number, digit = divmod(number, 62)
        found = (string.digits + string.ascii_uppercase + string.ascii_lowercase)[digit] + found
    return found


def main() -> None:
    """Make the secrets in the folder that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--key-file", type=Path, help="file of the API key (default: <folder>/api-key)")
    parser.add_argument("--postgres", default=Servers.postgres, help="host:port (%(default)s)")
    parser.add_argument("--rabbitmq", default=Servers.rabbitmq, help="host:port (%(default)s)")
    parser.add_argument(
        "--tell",
        nargs=2,
        metavar=("ADDRESS", "FOLDER"),
        help="say how to go on with a gateway at ADDRESS, where the host has these secrets in FOLDER",
    )
    parser.add_argument("--tls", action="store_true", help="sslmode=verify-full, and amqps")
    options = parser.parse_args()
    key_file = options.key_file or options.folder / "api-key"
    options.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    servers = Servers(options.postgres, options.rabbitmq, options.tls)
    make(options.folder, key_file, os.environ, servers=servers)
    hand_over(options.folder, key_file)
    if options.tell:
        address, folder = options.tell
        sys.stdout.write(
            f"When the gateway is healthy, it answers at {address}: its status page is "
            f"{address}/console/status, and the API key is in {Path(folder).parent / key_file.name}. In "
            "another terminal, `deploy/containers/card` tries it all and prints an address that logs a "
            "browser in. `make up` starts metrics and Grafana, too.\n"
        )


if __name__ == "__main__":
    main()
