"""The run directory, in which one stack keeps its data, logs and secrets."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

# Every process of a stack has this environment variable, so that leftovers of a killed runner are found.
MARKER = "TICKWIRE_RUN_DIR"


@dataclass(frozen=True)
class RunDirectory:
    """One stack's files below `root`; two stacks never share a root."""

    root: Path

    @classmethod
    def at(cls, path: Path | str) -> RunDirectory:
        """Return the run directory at `path`; create it if it is missing."""
        directory = cls(Path(path).resolve())
        for part in (directory.root, directory.logs, directory.data):
            part.mkdir(parents=True, exist_ok=True)
        directory.secrets.mkdir(mode=0o700, exist_ok=True)
        return directory

    @property
    def logs(self) -> Path:
        """The folder in which each process writes `<name>.log`."""
        return self.root / "logs"

    @property
    def data(self) -> Path:
        """The folder of the servers' data."""
        return self.root / "data"

    @property
    def secrets(self) -> Path:
        """The folder of generated passwords, readable by the owner alone."""
        return self.root / "secrets"

    @property
    def api_key(self) -> Path:
        """The file that contains only the API key."""
        return self.root / "api-key"

    @property
    def ready(self) -> Path:
        """The file that exists only while everything is ready."""
        return self.root / "ready"

    @property
    def ports(self) -> Path:
        """The file with the ports that the stack was started on."""
        return self.root / "ports.json"

    def log(self, name: str) -> Path:
        """Return the log file of one process."""
        return self.logs / f"{name}.log"

    def secret(self, name: str) -> str:
        """Return the secret called `name`; the first call generates it."""
        return kept(self.secrets / name, secrets.token_urlsafe(24))

    def environment(self) -> dict[str, str]:
        """Return the minimal environment that a server starts with.

        The user's own `PG*` and `RABBITMQ_*` variables must not reach a private server.
        """
        path = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
        return {"PATH": f"{path}:/usr/sbin:/sbin", "LANG": "C.UTF-8", "TZ": "UTC", MARKER: str(self.root)}


def kept(path: Path, value: str) -> str:
    """Return the content of the file at `path`; if it is missing, first write `value` there (mode 0600)."""
    if not path.exists() or not path.read_text().strip():
        write_private(path, value)
    return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, readable by the owner alone."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
