"""The contents of an image, read from the archive that `docker save` writes; nothing in the image is run."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, cast

from upkeep.errors import UpkeepError

SERVICES = ("gateway", "stock-data", "email", "batch-processor")
_BILL = "opt/tickwire/sbom.cdx.json"
_BLOCK = 1 << 20
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Image:
    """An image: its name, the SHA-256 of its configuration (which covers each layer), its SBOM."""

    name: str
    digest: str
    bill: Mapping[str, Any]


def names(repository: Path) -> list[str]:
    """Return the names that compose gives to the images of the four services."""
    command = ("compose", "--project-directory", str(repository), "config", "--format", "json")
    services = json.loads(_docker(*command))["services"]
    return [services[service]["image"] for service in SERVICES]


def found(name: str) -> Image:
    """Return an image that the local engine has; nothing is pulled."""
    with TemporaryDirectory(prefix="tickwire-image-") as folder:
        archive = Path(folder, "image.tar")
        _docker("image", "save", "--output", str(archive), name)
        return read(archive, name)


def read(file: Path, name: str) -> Image:
    """Return the only image in an archive. Raise `UpkeepError` if a layer does not match its digest."""
    try:
        with tarfile.open(file) as archive:
            (entry,) = json.load(_member(archive, "manifest.json"))
            configuration = _member(archive, entry["Config"]).read()
            layers, wanted = entry["Layers"], json.loads(configuration)["rootfs"]["diff_ids"]
            pairs = zip(layers, wanted, strict=True)
            strays = [layer for layer, digest in pairs if _hashed(_layer(archive, layer)) != digest]
            bill = _bill(archive, layers)
    except (KeyError, TypeError, ValueError, EOFError, OSError, tarfile.TarError) as error:
        raise UpkeepError(f"{name}: its archive cannot be read: {error}") from error
    if strays:
        raise UpkeepError(f"{name}: the layer {strays[0]} does not match its configuration.")
    if bill is None:
        raise UpkeepError(f"{name}: the image has no bill of materials (/{_BILL}).")
    return Image(name, hashlib.sha256(configuration).hexdigest(), bill)


def _bill(archive: tarfile.TarFile, layers: Sequence[str]) -> Mapping[str, Any] | None:
    """Return the bill that a container would see: that of the topmost layer that has one."""
    for layer in reversed(layers):
        with tarfile.open(fileobj=_layer(archive, layer)) as files:
            found = [file for file in files if file.isfile() and file.name.removeprefix("./") == _BILL]
            if found:
                return cast(Mapping[str, Any], json.load(_member(files, found[-1])))
    return None


def _layer(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """Return a layer as an uncompressed tar archive; some engines compress it."""
    stored = _member(archive, name)
    is_compressed = stored.read(2) == _GZIP
    stored.seek(0)
    return cast(IO[bytes], gzip.open(stored)) if is_compressed else stored


def _member(archive: tarfile.TarFile, name: str | tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(name)
    if content is None:
        raise ValueError(f"{name} is not a file")
    return content


def _hashed(content: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := content.read(_BLOCK):
        digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _docker(*words: str) -> str:
    try:
        done = subprocess.run(("docker", *words), capture_output=True, text=True, timeout=300, check=True)
    except subprocess.CalledProcessError as error:
        raise UpkeepError(error.stderr.strip()) from error
    return done.stdout
