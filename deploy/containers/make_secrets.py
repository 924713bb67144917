"""Makes every secret of a stack in containers, as files: `make-secrets [folder]`.

What is there is kept, so a second call changes nothing, and removing one file and calling again rotates
that one. Compose mounts the files; kustomize makes Secrets of them (`k8s/README.md`). Runs on a server
that has only Python, hence the standard library and nothing of ours.

| file | what it holds |
|---|---|
| `api-key`, `gateway-key-pepper` | the first administrator's key; what keys are hashed with |
| `postgres-password-<role>` | one per service, `postgres` (superuser) and `metrics` (reads statistics) |
| `postgres-dsn-<service>`, `rabbitmq-url-<service>` | the addresses that each service reads |
| `rabbitmq-password-<user>` | one per service, and `admin` for people |
| `rabbitmq-definitions.json` | the broker's topology with these users, passwords hashed |
| `grafana-password` | of Grafana's `admin` |
| `smtp-password`, `alpaca-secret-key` | what others gave you: empty, for you to fill in |
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import string
import sys
import zlib
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
# At the SMTP relay and at the data provider; empty as long as there is none.
OF_OTHERS = ("smtp-password", "alpaca-secret-key")
VHOST = "tickwire"
ADMIN = "admin"


@dataclass(frozen=True)
class SecretFolder:
    """A folder of one secret a file; only its owner may enter it."""

    path: Path

    def write(self, name: str, text: str) -> None:
        """Put `text` in its place at once, readable by the users inside the containers."""
        draft = self.path / f".{name}.new"
        draft.write_text(text, encoding="utf-8")
        # The folder keeps other people out; a container sees single files, as users this machine has not.
        draft.chmod(0o444)
        draft.replace(self.path / name)

    def kept(self, name: str, text: str) -> str:
        """Return the secret `name`; when there is none, store `text` first."""
        file = self.path / name
        if not file.exists():
            self.write(name, text)
        return file.read_text(encoding="utf-8")


def make(folder: Path) -> None:
    """Make in `folder` what is missing, and what is derived anew."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    kept = SecretFolder(folder)
    kept.kept("api-key", new_api_key())
    kept.kept("gateway-key-pepper", secrets.token_urlsafe(32))
    kept.kept("grafana-password", secrets.token_urlsafe(18))
    for name in OF_OTHERS:
        kept.kept(name, "")
        # For people to write into.
        (folder / name).chmod(0o644)
    for role in (*ROLES.values(), "postgres", "metrics"):
        kept.kept(f"postgres-password-{role}", secrets.token_urlsafe(24))
    passwords = {
        user: kept.kept(f"rabbitmq-password-{user}", secrets.token_urlsafe(24)) for user in (*ROLES, ADMIN)
    }
    for service, role in ROLES.items():
        password = kept.kept(f"postgres-password-{role}", "")
        kept.write(f"postgres-dsn-{service}", f"postgresql://{role}:{password}@postgres:5432/{role}")
        kept.write(f"rabbitmq-url-{service}", f"amqp://{service}:{passwords[service]}@rabbitmq:5672/{VHOST}")
    definitions = with_users(json.loads(DEFINITIONS.read_text(encoding="utf-8")), passwords)
    kept.write("rabbitmq-definitions.json", json.dumps(definitions, indent=1))


def with_users(definitions: dict[str, Any], passwords: dict[str, str]) -> dict[str, Any]:
    """Return `definitions` with these users; what a service may do is in them, `admin` may do everything."""
    everything = {"user": ADMIN, "vhost": VHOST, "configure": ".*", "write": ".*", "read": ".*"}
    return {
        **definitions,
        "users": [user(name, password) for name, password in passwords.items()],
        "permissions": [*definitions["permissions"], everything],
    }


def user(name: str, password: str) -> dict[str, Any]:
    """Return a user as RabbitMQ imports it: salted SHA-256; the salt is derived, so it stays."""
    salt = hashlib.sha256(f"{name}:{password}".encode()).digest()[:4]
    digest = hashlib.sha256(salt + password.encode()).digest()
    return {
        "name": name,
        "password_hash": base64.b64encode(salt + digest).decode(),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": ["administrator"] if name == ADMIN else [],
    }


def new_api_key() -> str:
    """Return a new API key: `tw_live_<16 hex digits>_<43 random digits><checksum of what is before it>`."""
    text = f"tw_live_{secrets.token_hex(8)}_{base62(secrets.randbits(256), 43)}"
    return text + base62(zlib.crc32(text.encode()), 6)


def base62(number: int, digits: int) -> str:
    """Return `number` in that many digits of 0-9, A-Z, a-z."""
    found = ""
    for _ in range(digits):
        number, digit = divmod(number, 62)
        found = (string.digits + string.ascii_uppercase + string.ascii_lowercase)[digit] + found
    return found


if __name__ == "__main__":
    make(Path(sys.argv[1]))
