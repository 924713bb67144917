"""The shell blocks of a page, run line by line as somebody would paste them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
_PATIENCE_S = 100
# A shell goes on after a line that fails, and so does who pastes: each such line is told. An answer of 4xx or
# 5xx is a failure, which curl would not say by itself.
_PRELUDE = """\
set -o pipefail
curl() { command curl --silent --show-error --fail-with-body --max-time 60 "$@"; }
trap 'failed+=("$BASH_COMMAND")' ERR
failed=()
# What fails, or takes too long, can be seen by the seconds before each command.
PS4='+ $SECONDS s: '
set -x
"""
_END = '\nset +x\nprintf "FAILED: %s\\n" "${failed[@]}" >&2; [ ${#failed[@]} = 0 ]\n'


def blocks(page: str, *, below: str = "") -> list[str]:
    """Return the shell blocks of `page` in the part whose heading is `below`, or before all headings."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    begun = text.split(f"\n## {below}\n", 1)[1] if below else text
    part = re.split(r"^## ", begun, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```sh\n(.*?)^```", part, re.MULTILINE | re.DOTALL)


def run(block: str, folder: Path, *, key: str, addresses: Mapping[str, str]) -> str:
    """Return the output of a block where `.run/api-key` holds `key` and the page's addresses lead here.

    Fails with the lines that failed, or with what was done until the time was over.
    """
    (folder / ".run").mkdir(exist_ok=True)
    (folder / ".run/api-key").write_text(key)
    venv = folder / ".venv"
    if not venv.exists():
        venv.symlink_to(REPOSITORY / ".venv")
    for there, here in addresses.items():
        block = block.replace(there, here)
    shell = subprocess.Popen(
        ["bash", "-c", _PRELUDE + block + _END],
        cwd=folder,
        env={**os.environ, "no_proxy": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, errors = shell.communicate(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        # With its children: they hold the pipes.
        os.killpg(shell.pid, signal.SIGKILL)
        said, errors = shell.communicate()
        pytest.fail(f"not over after {_PATIENCE_S} s:\n{said}\n{errors}")
    assert shell.returncode == 0, f"{said}\n{errors}"
    return said
