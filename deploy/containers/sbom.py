"""Prints what is installed as a CycloneDX 1.6 bill of materials: `python sbom.py <service> <version>`."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from typing import Any


def bill(service: str, version: str) -> dict[str, Any]:
    """Return the bill of this Python environment, as the software of one service."""
    found: dict[str, dict[str, str]] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"].lower().replace("_", "-")
        purl = f"pkg:pypi/{name}@{distribution.version}"
        found[purl] = {"type": "library", "name": name, "version": distribution.version, "purl": purl}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": service, "version": version}},
        "components": [found[purl] for purl in sorted(found)],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(bill(sys.argv[1], sys.argv[2]), indent=1) + "\n")
