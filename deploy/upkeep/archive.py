"""A backup as a file: a tar archive with a manifest that has the checksum of every other file in it."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from upkeep.errors import UpkeepError

_MANIFEST = "manifest.json"
_FORMAT = 1
_NAME = re.compile(r"tickwire-\d{8}T\d{6}Z\.tar(\.sealed)?")


def pack(work: Path, folder: Path, *, began: datetime, schema: Mapping[str, list[str]]) -> Path:
    """Pack the files of `work` into an archive in `folder`, and return its path."""
    files = sorted(file for file in work.iterdir() if file.is_file())
    manifest = {
        "format": _FORMAT,
        "made_at": began.isoformat(),
        "schema": dict(schema),
        "files": {file.name: {"bytes": file.stat().st_size, "sha256": _digest(file)} for file in files},
    }
    (work / _MANIFEST).write_text(json.dumps(manifest, indent=1))
    target = folder / f"tickwire-{began:%Y%m%dT%H%M%SZ}.tar"
    draft = target.with_name(f".{target.name}.new")
    with tarfile.open(draft, "w") as made:
        for file in (work / _MANIFEST, *files):
            made.add(file, file.name)
    draft.chmod(0o600)
    draft.replace(target)
    return target


def unpack(file: Path, work: Path) -> dict[str, Any]:
    """Unpack an archive into `work` and return its manifest. Raise `UpkeepError` if it is damaged.

    An `OSError` is one of the disk.
    """
    try:
        with tarfile.open(file) as found:
            found.extractall(work, filter="data")
        manifest: dict[str, Any] = json.loads((work / _MANIFEST).read_text())
        format_, files = manifest["format"], manifest["files"]
    except (tarfile.TarError, FileNotFoundError, ValueError, LookupError, TypeError) as error:
        raise UpkeepError(f"{file} is not a backup, or is damaged: {error}") from error
    if format_ != _FORMAT:
        raise UpkeepError(f"{file} was made by another release, in the unknown format {format_}.")
    for name, about in files.items():
        if not (work / name).exists() or _digest(work / name) != about["sha256"]:
            raise UpkeepError(f"{file} is damaged: the checksum of {name} is wrong. Use another backup.")
    return manifest


def listed(folder: Path) -> list[Path]:
    """Return the backups in `folder`, the newest first; what else a person has put there is none of them."""
    return sorted((file for file in folder.iterdir() if _NAME.fullmatch(file.name)), reverse=True)


def _digest(file: Path) -> str:
    with file.open("rb") as found:
        return hashlib.file_digest(found, "sha256").hexdigest()
