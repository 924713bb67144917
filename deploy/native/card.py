"""The card of the native run, made by `python -m card` as for containers and pods."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

from native.stack import Stack

_DEPLOY = Path(__file__).resolve().parents[1]
_PATIENCE_S = 60.0


async def text(stack: Stack) -> str:
    """Return the card of a running stack, after its addresses were tried.

    A separate process makes it, so that the long-running runner does not load an HTTP client.
    """
    environment = {**os.environ, "PYTHONPATH": str(_DEPLOY)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "card", *arguments(stack)), env=environment, stdout=PIPE, stderr=STDOUT
    )
    try:
        async with asyncio.timeout(_PATIENCE_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output.decode()


def arguments(stack: Stack) -> list[str]:
    """Return the facts of the stack that the card shows."""
    run = stack.blueprint.run
    gateway_log = shlex.quote(str(run.logs / "gateway.log"))
    pages = {
        "mailbox": stack.mailbox.url,
        "Prometheus": "" if "prometheus" in stack.blueprint.without else stack.prometheus.url,
    }
    hints = {
        "the tour": "make demo",
        "break it": f"kill -9 {stack.pids.get('email', '<process>')}      "
        "kills the email service: watch it come back without losing a mail",
        "look inside": f"make status · tail -f {gateway_log}",
        "stop": "Ctrl-C, or make stop: the data is kept for the next start",
    }
    return [
        *("--gateway", stack.url, "--key-file", str(run.api_key), "--recover", "make keys-reset"),
        f"--senders={stack.blueprint.variables.get('ALLOWED_SENDER_DOMAINS', '')}",
        # The gateway was ready a moment ago.
        "--patience=1",
        *(f"--page={name}={address}" for name, address in pages.items()),
        *(f"--hint={name}={command}" for name, command in hints.items()),
    ]
