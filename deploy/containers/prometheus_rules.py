"""Writes the alert rules as the Prometheus operator wants them: `python -m containers.prometheus_rules`.

One PrometheusRule for each file of `deploy/prometheus/rules`, the text indented and otherwise untouched, so
that a rule stands in one place. Run it after a change of the rules; a test holds the two equal.
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
    """Return the file's text."""
    files = sorted(RULES.glob("*.yml"))
    rules = [
        _HEAD.format(name=file.stem) + textwrap.indent(file.read_text(encoding="utf-8"), "  ")
        for file in files
    ]
    return _NOTE + "---\n".join(rules)


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
