"""Promtool, Prometheus' own checker of rules, configurations and expositions."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def run(*arguments: str, text: str | None = None) -> str:
    """Return the output of `promtool <arguments>`. Fail on its errors; skip when it is not installed."""
    binary = shutil.which("promtool")
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is missing")
        pytest.skip("promtool is missing")
    done = subprocess.run(
        [binary, *arguments],
        # A short life in a large heap: at Go's usual pace half of the time goes into collecting garbage.
        env={**os.environ, "GOGC": "400"},
        input=text,
        capture_output=True,
        text=True,
        timeout=100,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return output
