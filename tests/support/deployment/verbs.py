"""The verbs of `deploy/upkeep`, called as their targets of the Makefile call them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from support.deployment.composed import REPOSITORY


def call(way: str, *words: str, environment: Mapping[str, str]) -> str:
    """Return the output of a verb; fail unless it succeeds."""
    done = subprocess.run(
        [sys.executable, "-m", "upkeep", "--way", way, *words],
        env={**environment, "PYTHONPATH": str(REPOSITORY / "deploy")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
