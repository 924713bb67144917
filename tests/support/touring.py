"""`make demo`, as it is typed beside a stack that runs."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from native import demo

REPOSITORY = Path(__file__).resolve().parents[2]


def check(*variables: str, environment: Mapping[str, str]) -> None:
    """Assert that `make demo <variables>` passes through the stack that these and `environment` lead to."""
    done = subprocess.run(
        ["make", "--no-print-directory", "demo", *variables],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        check=False,
    )
    # Every step found what it looked for, such as a mail in the mailbox: otherwise the tour fails.
    assert done.returncode == 0, done.stdout
    passed = re.findall(r"^ (\d+)\. ", done.stdout, re.MULTILINE)
    assert passed == [str(number + 1) for number in range(len(demo.STEPS))], done.stdout
