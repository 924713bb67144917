"""Names the generated files that differ from what their generators write now: `python -m generated`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import grafana.build
import prometheus.build
from containers import prometheus_rules
from gateway import documents
from rabbitmq import definitions

REPOSITORY = Path(__file__).resolve().parents[1]


def by_generator() -> dict[str, dict[Path, str]]:
    """Return the text of every generated file, by the module that writes it."""
    # In the order in which they are to be run: the cluster's rules are made from the objectives' as well.
    return {
        "prometheus.build": prometheus.build.files(),
        "containers.prometheus_rules": {prometheus_rules.FILE: prometheus_rules.render()},
        "grafana.build": grafana.build.files(),
        "rabbitmq.definitions": {definitions.FILE: definitions.render()},
        "gateway.documents": documents.files(),
    }


def outdated() -> Iterator[str]:
    """Yield an error for each file that is missing or differs: its name, and the command that writes it."""
    for generator, files in by_generator().items():
        for path, text in files.items():
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                name = path.relative_to(REPOSITORY)
                yield f"{name} is out of date: run PYTHONPATH=deploy .venv/bin/python -m {generator}"


if __name__ == "__main__":
    found = list(outdated())
    sys.exit("\n".join(found) or None)
