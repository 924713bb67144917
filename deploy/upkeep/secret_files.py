"""The secrets of containers and pods, in the files that `containers/make_secrets.py` makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from containers import make_secrets

_PLACES = {
    "pepper": "gateway-key-pepper",
    "previous-pepper": "gateway-previous-key-pepper",
    "next-pepper": "gateway-next-key-pepper",
}


@dataclass(frozen=True)
class SecretFiles:
    """The files in `folder`, and the administrator's API key in `key_file`."""

    folder: Path
    key_file: Path

    def read(self, name: str) -> str:
        """Return a secret, or an empty text when there is none."""
        file = self._file(name)
        return file.read_text(encoding="utf-8").strip() if file.exists() else ""

    def write(self, secrets: Mapping[str, str]) -> None:
        """Store secrets in this order, and rewrite the files of the containers that use them."""
        for name, text in secrets.items():
            file = self._file(name)
            draft = file.with_name(f".{file.name}.new")
            draft.touch(mode=0o600)
            draft.write_text(text, encoding="utf-8")
            draft.replace(file)
        make_secrets.make(self.folder, self.key_file, {})

    def changed_at(self, name: str) -> float:
        """Return when a secret was last written, in seconds since 1970; 0 if it never was."""
        file = self._file(name)
        return file.stat().st_mtime if file.exists() else 0.0

    def _file(self, name: str) -> Path:
        if name == "api-key":
            return self.key_file
        kind, _, role = name.partition("-")
        if kind in ("postgres", "rabbitmq"):
            return self.folder / f"{kind}-password-{role}"
        return self.folder / _PLACES.get(name, name)
