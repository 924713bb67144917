"""Writes the alert rules for the Prometheus operator: `python -m containers.prometheus_rules`.

It writes one PrometheusRule for each file of `deploy/prometheus/rules`, with the text only indented, so that
each rule has one source. Run it after a change of the rules; a test compares the two.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[2]
RULES = _REPOSITORY / "deploy" / "prometheus" / "rules"
FILE = _REPOSITORY / "k8s" / "components" / "monitoring" / "rules.yaml"

_NOTE = """\
# yamllint disable
# Written by deploy/containers/prometheus_rules.py from deploy/prometheus/rules.
"""
_HEAD = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: {name}
spec:
"""


def render() -> str:
    """Return the text of the file."""
    files = sorted(RULES.glob("*.yml"))
    rules = [
        _HEAD.format(name=file.stem) + textwrap.indent(file.read_text(encoding="utf-8"), "  ")
        for file in files
    ]
    return _NOTE + "---\n".join(rules)


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
