"""Prints the contents of an image as a CycloneDX 1.6 bill of materials.

`python sbom.py <service> <version> <status>`: `<status>` is the base image's list of Debian's packages, as
dpkg writes it.
"""

from __future__ import annotations

import json
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def bill(service: str, version: str, status: str) -> dict[str, Any]:
    """Return the bill of materials of one service: this Python environment on the base image."""
    found = {"pkg:generic/python": _library("python", platform.python_version(), "pkg:generic/python")}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"].lower().replace("_", "-")
        found[f"pypi/{name}"] = _library(name, distribution.version, f"pkg:pypi/{name}")
    for paragraph in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " "
        )
        if fields.get("Status", "").endswith(" installed"):
            name = fields["Package"]
            found[f"deb/{name}"] = _library(name, fields["Version"], f"pkg:deb/debian/{name}")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": service, "version": version}},
        "components": sorted(found.values(), key=lambda component: component["purl"]),
    }


def _library(name: str, version: str, package: str) -> dict[str, str]:
    return {"type": "library", "name": name, "version": version, "purl": f"{package}@{version}"}


if __name__ == "__main__":
    packages = Path(sys.argv[3]).read_text(encoding="utf-8")
    sys.stdout.write(json.dumps(bill(sys.argv[1], sys.argv[2], packages), indent=1) + "\n")
