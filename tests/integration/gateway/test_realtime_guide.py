"""The first sockets of the guide to realtime, run as they are written there."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from support.gateway_stack import RunningGateway

GUIDE = (Path(__file__).parents[3] / "docs" / "guides" / "realtime.md").read_text(encoding="utf-8")


def example(language: str, listener: RunningGateway) -> str:
    """Return the first example in `language`, with the address and the key of `listener`."""
    [code, *_] = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    address = "ws://127.0.0.1:8080/v1/realtime"
    assert code.count(address) == code.count("<key or token>") == 1
    written: str = code.replace(address, f"{listener.socket_url}/v1/realtime").replace(
        "<key or token>", listener.admin_key
    )
    return written


async def line_with(text: str, command: Sequence[str], folder: Path) -> str:
    """Run `command` until it prints a line with `text`."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=pipe)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while (line := (await process.stdout.readline()).decode()) and text not in line:
                continue
        return line
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_first_socket_in_python_receives_its_own_message(
    listener: RunningGateway, tmp_path: Path
) -> None:
    (tmp_path / "first.py").write_text(example("python", listener))
    line = await line_with("good morning", [sys.executable, "-u", "first.py"], tmp_path)
    assert line.split(maxsplit=1)[1].strip() == "Administrator good morning"


async def test_the_first_socket_in_javascript_receives_its_own_message(
    listener: RunningGateway, modules: Path, node: str
) -> None:
    # Node has a WebSocket of its own from version 22 on, as browsers have.
    code = 'import { WebSocket } from "ws";\nglobalThis.WebSocket ??= WebSocket;\n' + example("js", listener)
    (modules / "first.mjs").write_text(code)
    line = await line_with("good morning", [node, "first.mjs"], modules)
    assert line.split(maxsplit=1)[1].strip() == "Administrator good morning"
