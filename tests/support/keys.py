"""Keys for signatures of images, made as the guide says."""

from __future__ import annotations

import subprocess
from pathlib import Path


def release_key(folder: Path, name: str = "release") -> tuple[Path, Path]:
    """Make a private key; return its file and that of its public key."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    make = ("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(private))
    subprocess.run(make, check=True, capture_output=True)
    show = ("openssl", "ec", "-in", str(private), "-pubout", "-out", str(public))
    subprocess.run(show, check=True, capture_output=True)
    return private, public
